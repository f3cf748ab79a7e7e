package config

import (
	"os"
	"testing"

	"batchwarden/daemon/strict"
)

// FuzzParse wants that no text makes the checks panic, that faults have a text, and that what is accepted keeps what
// Load promises.
func FuzzParse(f *testing.F) {
	for _, file := range []string{"testdata/full.yaml", "testdata/faults/batchwarden.yaml", "testdata/faults/clients.d/10-more.yaml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("clients: [{}]"))
	f.Add([]byte("realms: 5\nclients: 7\nvault: []"))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := gather("x/batchwarden.yaml", func(string) ([]byte, error) { return text, nil })
		if err != nil {
			faults, ok := err.(strict.Faults)
			if !ok || len(faults) == 0 {
				t.Fatalf("got %T %v, want strict.Faults", err, err)
			}
			for _, fault := range faults {
				if fault.Text == "" || fault.File == "" {
					t.Errorf("got %+v, want a file and a text", fault)
				}
			}
			return
		}
		seen := map[string]bool{}
		for _, client := range c.Clients {
			if client.Name == "" || seen[client.Name] {
				t.Errorf("client %q has no name of its own", client.Name)
			}
			seen[client.Name] = true
			if client.Match.User == "" && client.Match.Group == "" {
				t.Errorf("client %q matches everybody", client.Name)
			}
			for _, realm := range client.Realms {
				if _, known := c.Realms[realm]; !known {
					t.Errorf("client %q names a realm %q that is not there", client.Name, realm)
				}
			}
		}
		if c.Machine == "" || c.Vault.Address == "" || c.Sync.Interval <= 0 || c.StateDir == "" {
			t.Errorf("got %+v, want it complete", c)
		}
	})
}

// FuzzLimits wants the same of limits.yaml.
func FuzzLimits(f *testing.F) {
	text, err := os.ReadFile("testdata/limits.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := ParseLimits("limits.yaml", text)
		if (l == nil) == (err == nil) {
			t.Errorf("got %v and %v, want one of them", l, err)
		}
	})
}
