"""`make demo`: back up, destroy, restore, compare, on a real cluster, in front of your eyes."""
