"""Who is it, and what may it do: a request's facts in, a grant or a refusal out. Knows no HTTP library."""
