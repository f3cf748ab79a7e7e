package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMatchAttested(t *testing.T) {
	c, _, err := Check(host(t, least+"clients: [{name: c, match: {user: u, exe: /opt/opcon/lsam, sha256: "+strings.Repeat("AB", 32)+", unit: 'lsam@db\\x2d01.service'}}, {name: d, match: {user: u}}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := Match{User: "u", Exe: "/opt/opcon/lsam", SHA256: strings.Repeat("ab", 32), Unit: `lsam@db\x2d01.service`}
	if got := c.Clients[0].Match; got != want || !got.Attested() || c.Clients[1].Match.Attested() {
		t.Errorf("got %+v, want %+v, which only the launcher can tell", got, want)
	}
}

// TestUnmatched: entries that can match nobody are named, and no others.
func TestUnmatched(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	if err := os.WriteFile(real, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		entries []string
		never   []int
	}{
		{[]string{"user: a", "user: b", "group: a"}, nil},
		{[]string{"user: a", "user: a"}, []int{1}},
		{[]string{"user: a", "user: a, exe: /x"}, []int{1}},
		{[]string{"user: a, exe: /x", "user: a"}, nil},
		{[]string{"user: a, exe: /x", "user: a, exe: /y"}, nil},
		{[]string{"user: a, exe: /x", "user: a, exe: /x, sha256: " + sum}, []int{1}},
		{[]string{"user: a, sha256: " + sum, "user: a, exe: /x"}, nil},
		{[]string{"user: a, unit: x.service", "user: a, unit: x.service, exe: /x", "user: a, unit: y.service"}, []int{1}},
		{[]string{"group: g", "user: a", "user: a, group: g", "group: g"}, []int{2, 3}},
		{[]string{"user: a, group: g", "user: a", "group: g"}, nil},
		{[]string{"user: b", "user: a, unit: x.service", "user: a, unit: x.service", "user: b, group: g"}, []int{2, 3}},
		{[]string{"user: a, exe: " + real, "user: b, exe: " + link, "user: c, exe: " + dir + "/none"}, []int{1}},
	} {
		t.Run(strings.Join(c.entries, "; "), func(t *testing.T) {
			text := least + "clients:\n"
			var want []string
			for i, match := range c.entries {
				text += "  - {name: " + string(rune('a'+i)) + ", match: {" + match + "}}\n"
				if slices.Contains(c.never, i) {
					want = append(want, ": client "+string(rune('a'+i))+": it never matches: ")
				}
			}
			got, _, err := Check(host(t, text))
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Warnings) != len(want) {
				t.Fatalf("got %q, want %q", got.Warnings, want)
			}
			for i, w := range got.Warnings {
				if !strings.Contains(w, want[i]) {
					t.Errorf("got %q, want %q", w, want[i])
				}
			}
		})
	}
}

// TestUnmatchedInAnotherFile: files count in their order, and the warning names both.
func TestUnmatchedInAnotherFile(t *testing.T) {
	c, _, err := Check(host(t, least, "10-a.yaml", "clients: [{name: first, match: {group: g}}]\n",
		"20-b.yaml", "clients: [{name: second, match: {group: g, unit: x.service}}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "20-b.yaml: client second: ") || !strings.Contains(c.Warnings[0], "10-a.yaml") {
		t.Errorf("got %q", c.Warnings)
	}
}

// TestUnserved: a PAM service without a file is accepted, and said.
func TestUnserved(t *testing.T) {
	c, _, err := Check(host(t, `vault: {address: https://v, auth: {role_id_file: /r, secret_id_file: /s}}
clients:
  - {name: some, match: {user: u}, pam: no-such-service}
  - {name: none, match: {user: v}, pam: ""}
`))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "client some: pam: there is no file /etc/pam.d/no-such-service") || c.Clients[0].PAM != "no-such-service" {
		t.Errorf("got %q, %+v", c.Warnings, c.Clients)
	}
	entries, err := os.ReadDir("/etc/pam.d")
	if err != nil || len(entries) == 0 {
		t.Skip("this machine has no PAM")
	}
	c, _, err = Check(host(t, "vault: {address: https://v, auth: {role_id_file: /r, secret_id_file: /s}}\nclients: [{name: c, match: {user: u}, pam: "+entries[0].Name()+"}]\n"))
	if err != nil || len(c.Warnings) != 0 {
		t.Errorf("got %v, %q", err, c.Warnings)
	}
}
