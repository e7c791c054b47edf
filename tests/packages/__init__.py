"""Long runs of the packages in systems made for them: `make test-packages`."""
