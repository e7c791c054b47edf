"""What tests share: hosts, ends, fakes and samples. No test module imports another."""
