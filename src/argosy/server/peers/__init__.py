"""Several servers over one database: who is there, who decides, and what each has that another needs."""
