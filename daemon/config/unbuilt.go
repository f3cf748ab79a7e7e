package config

import "fmt"

// unbuilt lists what the contract has and this version does not act on. A setting that would be ignored is refused
// instead, whatever it says: who writes `exe:` believes that it restricts somebody.
//
// setting is a place with [] for any index and * for any name; value is the setting's value that is refused, "" for
// every value that is not empty.
var unbuilt = []struct{ setting, value, instead string }{
	{"systemd_socket", "", "leave it empty"},
	{"metrics.textfile", "", "leave it empty"},
	{"local_vault.key", "dpapi", "use keyfile:PATH, credential or tpm2"},
	{"clients[].match.exe", "", "match by user or group"},
	{"clients[].match.sha256", "", "match by user or group"},
	{"clients[].match.unit", "", "match by user or group"},
	{"clients[].match.credential_unit", "", "match by user or group"},
	{"clients[].pam", "", "leave it empty"},
}

// idle lists what the contract has and this version does not act on although it reads it: it bounds how much a client
// may ask, not what. Whoever sets it is warned.
var idle = []struct {
	setting string
	given   func(*Client) bool
}{
	{"rate", func(c *Client) bool { return !c.Rate.Unlimited() }},
	{"concurrent", func(c *Client) bool { return c.Concurrent > 0 }},
}

// warn names the settings that are read and without effect.
func (c *Config) warn() {
	for i := range c.Clients {
		for _, s := range idle {
			if e := &c.Clients[i]; s.given(e) {
				c.Warnings = append(c.Warnings, fmt.Sprintf("%s: client %s: %s is not enforced by this version", e.File, e.Name, s.setting))
			}
		}
	}
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
