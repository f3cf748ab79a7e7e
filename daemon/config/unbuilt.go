package config

// unbuilt lists what the contract has and this version does not act on. A setting that would be ignored is refused
// instead, whatever it says: who writes `pam:` believes that it restricts somebody.
//
// setting is a place with [] for any index and * for any name; value is the setting's value that is refused, "" for
// every value that is not empty.
var unbuilt = []struct{ setting, value, instead string }{
	{"local_vault.key", "dpapi", "use keyfile:PATH, credential or tpm2"},
}

// built reports whether this version acts on the setting at the place, and if not adds the fault that says so.
func (c *checker) built(setting, place, value string) bool {
	if value == "" {
		return true
	}
	for _, u := range unbuilt {
		if u.setting != setting || u.value != "" && u.value != value {
			continue
		}
		what := "is"
		if u.value != "" {
			what = u.value + " is"
		}
		c.fault(place, what+" not supported by this version; %s", u.instead)
		return false
	}
	return true
}
