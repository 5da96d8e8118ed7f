"""Data of other formats, turned into COCO files in ARMBench's folder shape."""
