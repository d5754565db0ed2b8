"""Where and how numbers are computed: the device, the precision, and how long it takes."""
