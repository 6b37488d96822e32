"""Several servers over one database: which are alive, which one decides, and what they ask each other for."""
