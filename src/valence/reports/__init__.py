"""Tables, pictures and the page of a comparison; they read run folders only."""
