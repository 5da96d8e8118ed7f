# mmdet's 1x: twelve epochs of SGD at 0.02 for sixteen images a step, divided by ten after epochs 8 and 11.
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'
