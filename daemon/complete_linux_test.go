package daemon_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"batchwarden/installer/testbed"
)

// The shell completes names from what the running service tells the caller, and from nothing when it tells nothing.
func TestCompletion(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	if a, err := b.Call(b.Accounts.LSAM, http.MethodPost, "/v1/jobs", map[string]any{
		"id": "lsam-77", "realm": testbed.Realm, "subject": map[string]string{"user": testbed.User}, "batch_user": "payroll", "command": []string{"/bin/true"},
	}); err != nil || a.Code() != "" {
		t.Fatalf("%v, %v", a, err)
	}
	for _, c := range []struct {
		as   testbed.Account
		line string
		want []string
	}{
		{b.Accounts.LSAM, "retrieve ", []string{"payroll", "reports"}},
		{testbed.Root, "batch-users ", []string{"payroll", "reports"}},
		{testbed.Root, "retrieve pay", []string{"payroll"}},
		{b.Accounts.LSAM, "run --as ", []string{"payroll", "reports"}},
		{b.Accounts.LSAM, "run --realm ", []string{testbed.Realm}},
		{testbed.Root, "explain --realm ", []string{testbed.Realm}},
		{b.Accounts.LSAM, "jobs ", []string{"lsam-77"}},
		{b.Accounts.LSAM, "signal lsam-77 TER", []string{"TERM"}},
		{testbed.Root, "log-level de", []string{"debug"}},
		{b.Accounts.Stranger, "retrieve ", nil},
		{b.Accounts.LSAM, "--socket /nonexistent/s jobs ", nil},
	} {
		r := b.CLI(c.as, append([]string{"__completeNoDesc"}, strings.Split(c.line, " ")...)...)
		var got []string
		for line := range strings.Lines(r.Out) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, ":") && (strings.HasPrefix(line, c.line[strings.LastIndex(c.line, " ")+1:])) {
				got = append(got, line)
			}
		}
		if r.Code != 0 || !slices.Equal(got, c.want) {
			t.Errorf("%q by %s: got %d and %q, want %q: %s", c.line, c.as.Name, r.Code, got, c.want, r.Err)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		r := b.CLI(b.Accounts.Stranger, "completion", shell)
		if r.Code != 0 || !strings.Contains(r.Out, "__complete") {
			t.Errorf("completion %s: %d, %d octets, %s", shell, r.Code, len(r.Out), r.Err)
		}
		if shell == "bash" {
			if check := b.CommandIn(b.Accounts.Stranger, []byte(r.Out), "bash", "-n"); check.Code != 0 {
				t.Errorf("bash does not take its completion: %s", check.Err)
			}
		}
	}
}
