"""The stages of dvc.yaml: each parses its arguments and calls its package in dd/."""

from dd.system.signals import brief_interrupts

brief_interrupts()
