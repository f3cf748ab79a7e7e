package keeper

import (
	"os"
	"slices"
	"strings"
	"testing"

	"batchwarden/platform/account"
	"batchwarden/platform/launch"
)

// meanwhile changes the system's files when the account is looked up for the last time.
type meanwhile struct {
	account.Resolver
	change func()
}

func (m meanwhile) Fresh(name string) (account.Account, error) {
	m.change()
	return m.Resolver.Fresh(name)
}

// rewrite changes one of the system's files, which in the namespace of these tests is theirs, until the test ends.
func rewrite(t *testing.T, name string, change func(string) string) {
	t.Helper()
	file := "/etc/" + name
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, old, 0o644); err != nil {
			t.Error(err)
		}
	})
	now := change(string(old))
	if now == string(old) {
		t.Errorf("%s stays as it is", file)
	}
	if err := os.WriteFile(file, []byte(now), 0o644); err != nil {
		t.Error(err)
	}
}

// TestChangedMeanwhile: between the decision and the exec an account is deleted, or deleted and made anew, or loses a
// group: the job is refused, and runs as nobody.
func TestChangedMeanwhile(t *testing.T) {
	needRoot(t)
	replace := func(old, now string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, now, 1) }
	}
	for name, c := range map[string]struct {
		file   string
		change func(string) string
	}{
		"deleted":             {"passwd", replace("payroll:x:4200:4200::/mnt/home/payroll:/bin/sh\n", "")},
		"recreated":           {"passwd", replace("payroll:x:4200:4200:", "payroll:x:4999:4200:")},
		"recreated as root":   {"passwd", replace("payroll:x:4200:4200:", "payroll:x:0:0:")},
		"another primary":     {"passwd", replace("payroll:x:4200:4200:", "payroll:x:4200:4400:")},
		"group deleted":       {"group", replace("finance:x:4400:payroll,agent\n", "")},
		"group has him not":   {"group", replace("finance:x:4400:payroll,agent", "finance:x:4400:agent")},
		"group made anew":     {"group", replace("finance:x:4400:", "finance:x:4410:")},
		"another group added": {"group", replace("keys:x:4401:syncer", "keys:x:4401:syncer,payroll")},
	} {
		t.Run(name, func(t *testing.T) {
			config := configure(t)
			config.Accounts = meanwhile{account.System(), func() { rewrite(t, c.file, c.change) }}
			b := start(t, config)
			job := b.run(spec("changed", "/bin/sh", "-c", "id"))
			if job.State != launch.StateFailed || job.Code != launch.CodeChanged || b.output("changed", launch.Stdout) != "" {
				t.Errorf("got %+v, want %s", job, launch.CodeChanged)
			}
		})
	}
}

// TestGroupDeleted: of a group that was deleted before the launch the job has nothing, also where the launcher knew the
// account before.
func TestGroupDeleted(t *testing.T) {
	b := newBed(t)
	inside := func(id string) []string {
		groups := strings.Fields(b.says(id, "/usr/bin/id", "-G"))
		slices.Sort(groups)
		return groups
	}
	if got := inside("before"); !slices.Equal(got, []string{"4200", "4400"}) {
		t.Errorf("before: %v", got)
	}
	rewrite(t, "group", func(s string) string { return strings.Replace(s, "finance:x:4400:payroll,agent\n", "", 1) })
	if got := inside("after"); !slices.Equal(got, []string{"4200"}) {
		t.Errorf("after: %v", got)
	}
}
