package main

import (
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/config"
	"batchwarden/daemon/version"
	"batchwarden/platform/disk"
	"batchwarden/platform/facts"
)

// serviceUnits are ours.
var serviceUnits = []string{"batchwardend.service", "batchwarden-launcher.service", "batchwarden.socket"}

// configuration adds what the files say, without comments: those may say anything. It returns nil when there is no
// valid configuration.
func (b *bundle) configuration(o supportOptions) *config.Config {
	c, warnings, err := config.Check(o.config)
	if err != nil {
		b.miss("configuration.json", err)
	} else {
		shown := *c
		shown.Vault.Address = withoutUser(c.Vault.Address)
		b.json("configuration.json", shown)
		b.add("configuration-warnings.txt", strings.Join(warnings, "\n")+"\n")
		for _, client := range c.Clients {
			for _, user := range append(client.Subjects.Users, client.Subjects.Privileged...) {
				if !strings.ContainsAny(user, "*?[") {
					b.name(user)
				}
			}
			if client.Subject != nil {
				b.name(client.Subject.User)
				b.name(client.Subject.By)
			}
		}
	}
	limits, warnings, limitsErr := config.CheckLimits(o.limits)
	if limitsErr != nil {
		b.miss("limits.json", limitsErr)
	} else {
		b.json("limits.json", limits)
		b.add("limits-warnings.txt", strings.Join(warnings, "\n")+"\n")
	}
	return c
}

// withoutUser is an address without a name and a password before its host.
func withoutUser(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "(not an address)"
	}
	u.User = nil
	return u.String()
}

// versions tells the programs apart, by what they were built from and by their sums.
func (b *bundle) versions() {
	var t strings.Builder
	fmt.Fprintf(&t, "this program: %s (commit %s)\n", version.Number, version.Commit)
	dirs := []string{"/usr/lib/batchwarden", "/usr/bin"}
	if self, err := os.Executable(); err == nil {
		dirs = append([]string{filepath.Dir(self)}, dirs...)
	}
	seen := map[string]bool{}
	for _, dir := range dirs {
		programs, err := filepath.Glob(filepath.Join(dir, "batchwarden*"))
		if err != nil {
			continue // not a pattern, which no directory of ours makes of it
		}
		for _, path := range programs {
			if !seen[path] {
				seen[path] = true
				t.WriteString(program(path))
			}
		}
	}
	b.add("versions.txt", t.String())
}

func program(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error() + "\n"
	}
	defer f.Close() // only read
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err != nil {
		return err.Error() + "\n"
	}
	text := fmt.Sprintf("%s: %d octets, sha256 %x", path, n, sum.Sum(nil))
	if info, err := buildinfo.Read(f); err == nil {
		text += ", " + info.GoVersion
		for _, s := range info.Settings {
			if strings.HasPrefix(s.Key, "vcs.") || s.Key == "GOARCH" {
				text += fmt.Sprintf(", %s %s", s.Key, s.Value)
			}
		}
	}
	return text + "\n"
}

func (b *bundle) logs(ctx context.Context) {
	text, err := facts.Journal(ctx, supportLines, serviceUnits...)
	if err != nil {
		b.miss("journal.txt", err)
		return
	}
	b.add("journal.txt", text)
}

// records adds the newest lines of the audit log.
func (b *bundle) records(ctx context.Context, c *config.Config, withoutNames bool) {
	const name = "audit.jsonl"
	if c == nil {
		b.miss(name, errors.New("without a configuration it is not known where it is"))
		return
	}
	var t strings.Builder
	all := func([]byte) (yes, stop bool) { return true, false }
	err := audit.Tail(ctx, c.Audit.File, supportRecords, false, all, func(line []byte) error {
		var r struct {
			Subject *audit.Subject `json:"subject"`
		}
		if json.Unmarshal(line, &r) == nil && r.Subject != nil {
			b.name(r.Subject.User)
			b.name(r.Subject.By)
		}
		if withoutNames {
			line = withoutWords(line)
		}
		t.Write(append(line[:len(line):len(line)], '\n'))
		return nil
	})
	if err != nil {
		b.miss(name, err)
		return
	}
	b.add(name, t.String())
}

// withoutWords is a record without what was run and with what environment. It can no longer be verified.
func withoutWords(line []byte) []byte {
	var r map[string]any
	if json.Unmarshal(line, &r) != nil {
		return []byte(`{"left_out":"a line that is no record"}`)
	}
	if r["kind"] == audit.PolicyState {
		r["reason"] = leftOut // it quotes the document
	}
	if job, is := r["job"].(map[string]any); is {
		delete(job, "argv")
		delete(job, "env")
		delete(job, "labels")
	}
	text, err := json.Marshal(r)
	if err != nil {
		return nil // what was JSON is JSON
	}
	return text
}

// host adds the system, its view of our processes and units, and what lies where.
func (b *bundle) host(c *config.Config, o supportOptions) {
	programs := []string{"batchwardend", "batchwarden-launcher", "batchwarden-sync"}
	for _, list := range [][]facts.Fact{facts.System(), facts.Processes(programs...), facts.Units(serviceUnits...)} {
		for _, f := range list {
			if f.Err != nil {
				b.miss(f.Name, f.Err)
				continue
			}
			b.add(f.Name, f.Text)
		}
	}
	dirs := []string{filepath.Dir(o.config)}
	if c != nil {
		dirs = append(dirs, c.StateDir, c.Launcher.StateDir, filepath.Dir(c.Socket), filepath.Dir(c.Launcher.Socket))
		b.rooms(c.StateDir, c.Launcher.StateDir, filepath.Dir(c.Audit.File))
	}
	var t strings.Builder
	for _, dir := range dirs {
		fmt.Fprintf(&t, "%s:\n%s\n", dir, facts.List(dir, supportList))
	}
	b.add("directories.txt", t.String())
}

// rooms tells how full the file systems are.
func (b *bundle) rooms(dirs ...string) {
	var t strings.Builder
	for _, dir := range dirs {
		r, err := disk.Of(dir)
		if err != nil {
			fmt.Fprintf(&t, "%v\n", err)
			continue
		}
		fmt.Fprintf(&t, "%s: %s of %s free, %d more files\n", dir, octets(r.Free), octets(r.Total), r.Files)
	}
	b.add("disks.txt", t.String())
}
