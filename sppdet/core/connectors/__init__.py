"""Detections in the forms of other libraries, none of which is needed: imported when asked for."""
