package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// setting is one place of the configuration and what it takes for a new value to be in force.
type setting struct {
	place   string
	restart bool
	in      func(*Config) any // a pointer to the value
}

// settings are all of the configuration but realms and clients, which are compared by their names. What needs a restart
// was taken when the services started: sockets are bound, keys read, directories open, accounts looked up.
var settings = []setting{
	{"machine", true, func(c *Config) any { return &c.Machine }}, // the local vault and the launcher's witness are that machine's
	{"platforms", false, func(c *Config) any { return &c.Platforms }},
	{"groups", false, func(c *Config) any { return &c.Groups }},
	{"state_dir", true, func(c *Config) any { return &c.StateDir }},
	{"socket", true, func(c *Config) any { return &c.Socket }},
	{"launcher.socket", true, func(c *Config) any { return &c.Launcher.Socket }},
	{"launcher.state_dir", true, func(c *Config) any { return &c.Launcher.StateDir }},
	{"launcher.cgroup_root", true, func(c *Config) any { return &c.Launcher.CgroupRoot }},
	{"users.daemon", true, func(c *Config) any { return &c.Users.Daemon }},
	{"users.sync", true, func(c *Config) any { return &c.Users.Sync }},
	{"systemd_socket", true, func(c *Config) any { return &c.SystemdSocket }},
	// The sync worker reads these for itself, each time that it runs.
	{"vault.address", false, func(c *Config) any { return &c.Vault.Address }},
	{"vault.ca_file", false, func(c *Config) any { return &c.Vault.CAFile }},
	{"vault.server_name", false, func(c *Config) any { return &c.Vault.ServerName }},
	{"vault.namespace", false, func(c *Config) any { return &c.Vault.Namespace }},
	{"vault.mount", false, func(c *Config) any { return &c.Vault.Mount }},
	{"vault.auth", false, func(c *Config) any { return &c.Vault.Auth }},
	{"sync.sources", false, func(c *Config) any { return &c.Sync.Sources }},
	{"sync.interval", false, func(c *Config) any { return &c.Sync.Interval }},
	{"sync.sweep", false, func(c *Config) any { return &c.Sync.Sweep }},
	{"sync.max_stale", false, func(c *Config) any { return &c.Sync.MaxStale }},
	{"sync.policy_max_stale", false, func(c *Config) any { return &c.Sync.PolicyMaxStale }},
	{"local_vault.key", true, func(c *Config) any { return &c.LocalVault.Key }},
	{"operators.users", false, func(c *Config) any { return &c.Operators.Users }},
	{"operators.groups", false, func(c *Config) any { return &c.Operators.Groups }},
	{"jobs.keep", false, func(c *Config) any { return &c.Jobs.Keep }},
	{"jobs.capture_max", false, func(c *Config) any { return &c.Jobs.CaptureMax }},
	{"jobs.grace", false, func(c *Config) any { return &c.Jobs.Grace }},
	{"jobs.max_running", false, func(c *Config) any { return &c.Jobs.MaxRunning }},
	{"audit.file", true, func(c *Config) any { return &c.Audit.File }},
	{"audit.sync", true, func(c *Config) any { return &c.Audit.Sync }}, // the launcher's journal goes by it too
	{"audit.rotate", false, func(c *Config) any { return &c.Audit.Rotate }},
	{"audit.keep", false, func(c *Config) any { return &c.Audit.Keep }},
	{"audit.argv", false, func(c *Config) any { return &c.Audit.Argv }},
	{"audit.journald", true, func(c *Config) any { return &c.Audit.Journald }},
	{"metrics.textfile", true, func(c *Config) any { return &c.Metrics.Textfile }},
	{"log.level", false, func(c *Config) any { return &c.Log.Level }},
	{"log.format", true, func(c *Config) any { return &c.Log.Format }},
}

// Diff names what of next is another value than in running, by its place: never the value.
func Diff(running, next *Config) []string {
	var places []string
	for _, s := range settings {
		if s.differs(running, next) {
			places = append(places, s.place)
		}
	}
	places = append(places, differing("realms.", running.Realms, next.Realms)...)
	places = append(places, differing("clients.", byName(running.Clients), byName(next.Clients))...)
	if len(running.Clients) == len(next.Clients) && !slices.EqualFunc(running.Clients, next.Clients, func(a, b Client) bool { return a.Name == b.Name }) {
		places = append(places, "clients") // the first match wins, so their order counts
	}
	return places
}

// Keep is next with those settings as they are in running that only a restart changes, and their places.
func Keep(running, next *Config) (c *Config, restart []string) {
	c = new(*next)
	for _, s := range settings {
		if s.restart && s.differs(running, next) {
			restart = append(restart, s.place)
			reflect.ValueOf(s.in(c)).Elem().Set(reflect.ValueOf(s.in(running)).Elem())
		}
	}
	return c, restart
}

// Syncs reports whether any of the places decides what is read from Vault, or how.
func Syncs(places []string) bool {
	return slices.ContainsFunc(places, func(place string) bool {
		top, _, _ := strings.Cut(place, ".")
		return top == "vault" || top == "sync" || top == "realms" || top == "groups" || top == "platforms"
	})
}

func (s setting) differs(a, b *Config) bool {
	x, y := reflect.ValueOf(s.in(a)).Elem(), reflect.ValueOf(s.in(b)).Elem()
	if x.Kind() == reflect.Slice && x.Len() == 0 && y.Len() == 0 {
		return false // absent and empty are the same
	}
	return !reflect.DeepEqual(x.Interface(), y.Interface())
}

// Same reports whether two entries say the same, wherever they were written.
func (c Client) Same(other Client) bool {
	c.File, other.File, c.Line, other.Line = "", "", 0, 0
	return reflect.DeepEqual(c, other)
}

// Same reports whether two realms say the same.
func (r Realm) Same(other Realm) bool { return reflect.DeepEqual(r, other) }

func byName(clients []Client) map[string]Client {
	m := make(map[string]Client, len(clients))
	for _, c := range clients {
		m[c.Name] = c
	}
	return m
}

// differing are the names in either of the maps under which there is not the same in the other.
func differing[V interface{ Same(V) bool }](before string, a, b map[string]V) (places []string) {
	all := maps.Clone(b)
	maps.Copy(all, a)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		x, inA := a[name]
		y, inB := b[name]
		if inA != inB || !x.Same(y) {
			places = append(places, before+name)
		}
	}
	return places
}
