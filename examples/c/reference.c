/* Runs the integer network in a header that `na-convert export NET.snn.onnx -o network.h` wrote:

     cc -O2 -std=c99 -o reference reference.c       (network.h beside it, or -DNETWORK='"other.h"')
     ./reference T < currents > counts

   currents: int32, NA_INPUTS for each sample, its analog currents, the same at every step.
   counts: uint8, for each sample and step the spike counts up to then, [NA_NEURONS], layer by layer.
   Layout and arithmetic: docs/hardware.md. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifndef NETWORK
#define NETWORK "network.h"
#endif
#include NETWORK

static uint8_t memory[NA_MEMORY]; /* spikes up to now */
static int64_t sums[NA_SUMS];     /* of the layer at work */

static void convolve(const na_product *p, int channels) {
  for (int o = 0; o < channels; o++)
    for (int y = 0; y < p->made[0]; y++)
      for (int x = 0; x < p->made[1]; x++) {
        const int8_t *w = na_weights + p->weight + o * p->depth * p->kernel[0] * p->kernel[1];
        int first = o / (channels / p->group) * p->depth;
        int64_t *sum = &sums[(o * p->made[0] + y) * p->made[1] + x];
        for (int c = first; c < first + p->depth; c++)
          for (int i = 0; i < p->kernel[0]; i++)
            for (int j = 0; j < p->kernel[1]; j++, w++) {
              int v = y * p->strides[0] - p->pads[0] + i * p->dilations[0];
              int u = x * p->strides[1] - p->pads[1] + j * p->dilations[1];
              if (v >= 0 && v < p->size[0] && u >= 0 && u < p->size[1])
                *sum += *w * memory[p->source + (c * p->size[0] + v) * p->size[1] + u];
            }
      }
}

static void fire(const na_operation *op, const int32_t *currents, int t) {
  for (int i = 0; i < op->sums; i++) {
    sums[i] = (int64_t)t * na_numbers[op->bias + i / (op->sums / op->biases)];
    for (int k = 0; k < op->currents[1]; k++)
      sums[i] += (int64_t)t * currents[na_currents[op->currents[0] + k] + i];
  }
  for (int k = 0; k < op->products[1]; k++)
    convolve(&na_products[op->products[0] + k], op->channels);
  for (int i = 0; i < op->size; i++) {
    int channel = i / (op->size / op->channels);
    int64_t total = op->places ? INT64_MIN : sums[i];
    for (int k = 0; k < op->places; k++) {
      int at = na_numbers[op->table + i * op->places + k];
      if (at >= 0 && sums[at] > total) total = sums[at];
    }
    total *= op->resolution;
    for (int k = 0; k < op->shortcuts[1]; k++) {
      const na_shortcut *s = &na_shortcuts[op->shortcuts[0] + k];
      total += (int64_t)na_numbers[s->times + channel] * memory[s->source + i];
    }
    uint8_t *count = &memory[op->output + i];
    int64_t unit = (int64_t)op->resolution * na_numbers[op->threshold + channel];
    *count += 2 * total >= unit * (2 * *count + 1);
  }
}

static void move(const na_operation *op) {
  for (int i = 0; i < op->size; i++) {
    int found = 0;
    for (int k = 0; k < op->places; k++) {
      int at = na_numbers[op->table + i * op->places + k], count = at < 0 ? 0 : memory[at];
      found = op->adds ? found + count : count > found ? count : found;
    }
    memory[op->output + i] = (uint8_t)found;
  }
}

int main(int argc, char **argv) {
  static int32_t currents[NA_INPUTS];
  int timesteps = argc > 1 ? atoi(argv[1]) : NA_TIMESTEPS;
  if (timesteps < 1 || timesteps > NA_TIMESTEPS) return 2;
  while (fread(currents, sizeof *currents, NA_INPUTS, stdin) == NA_INPUTS) {
    memset(memory, 0, sizeof memory);
    for (int t = 1; t <= timesteps; t++)
      for (const na_operation *op = na_operations; op < na_operations + NA_OPERATIONS; op++) {
        if (!op->channels) { move(op); continue; }
        fire(op, currents, t);
        fwrite(memory + op->output, 1, (size_t)op->size, stdout);
      }
  }
  return ferror(stdin) || fflush(stdout) ? 1 : 0;
}
