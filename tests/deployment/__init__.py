"""Tests of what is deployed and of how, as far as that can be told without Azure."""
