"""Who runs the cells of a grid."""
