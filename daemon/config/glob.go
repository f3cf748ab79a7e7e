package config

// MatchGlob reports whether name fits the glob: "*" stands for any run of octets, slashes and none included; "?" for
// exactly one octet; everything else for itself. Letter case counts. Its time is at most len(glob) times len(name).
func MatchGlob(glob, name string) bool {
	g, n := 0, 0
	star, retry := -1, 0 // the last star, and where in name to go on when what follows it did not fit
	for n < len(name) {
		switch {
		case g < len(glob) && glob[g] == '*':
			star, retry = g, n
			g++
		case g < len(glob) && (glob[g] == '?' || glob[g] == name[n]):
			g++
			n++
		case star >= 0:
			retry++
			g, n = star+1, retry
		default:
			return false
		}
	}
	for g < len(glob) && glob[g] == '*' {
		g++
	}
	return g == len(glob)
}

// MatchAny reports whether name fits one of the globs.
func MatchAny(globs []string, name string) bool {
	for _, g := range globs {
		if MatchGlob(g, name) {
			return true
		}
	}
	return false
}
