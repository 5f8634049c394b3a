"""Views of the one SNN description (`na_convert.snn`): each module writes one form of file."""
