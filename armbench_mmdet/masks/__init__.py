"""Run-length masks: decoding, encoding, upsampling."""
