"""Where rows come from and how they are chosen: cards, readers, splits, cuts."""
