"""What the commands share: their options, how text becomes values, what is printed and what is written."""
