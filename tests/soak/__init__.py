"""Programs that run for minutes and print a table: is memory flat, does anything pause?"""
