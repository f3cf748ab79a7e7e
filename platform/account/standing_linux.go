package account

func standingOf(name string) (Standing, error) { return shadowLine("/etc/shadow", name) }
