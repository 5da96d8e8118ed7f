"""Data of other formats as COCO files in ARMBench's folder shape; weights of other projects' models as ours."""
