package daemon_test

import (
	"net/http"
	"strings"
	"testing"

	"batchwarden/installer/testbed"
)

// An operator changes how much both services log while they run; nobody else does.
func TestLogLevel(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	at := func(daemon, launcher string) string {
		return "batchwardend          " + daemon + "\nbatchwarden-launcher  " + launcher + "\n"
	}
	for _, c := range []struct {
		as   testbed.Account
		args []string
		code int
		out  string
		err  string
	}{
		{testbed.Root, nil, 0, at("info", "info"), ""},
		{testbed.Root, []string{"error"}, 0, at("error", "error"), ""},
		{testbed.Root, []string{"debug"}, 0, at("debug", "debug"), ""},
		{testbed.Root, []string{"loud"}, 64, "", `"loud"`},
		{b.Accounts.LSAM, []string{"error"}, 77, "", "caller.forbidden"},
		{b.Accounts.LSAM, nil, 77, "", "caller.forbidden"},
		{testbed.Root, nil, 0, at("debug", "debug"), ""},
	} {
		r := b.CLI(c.as, append([]string{"log-level"}, c.args...)...)
		if r.Code != c.code || r.Out != c.out || !strings.Contains(r.Err, c.err) {
			t.Errorf("log-level %q as %s: exit %d, want %d\n%q, want %q\n%q, want %q in it", c.args, c.as.Name, r.Code, c.code, r.Out, c.out, r.Err, c.err)
		}
	}
	for _, p := range []*testbed.Process{b.Daemon, b.Launcher} {
		if text := p.LogText(); !strings.Contains(text, `"level":"debug"`) {
			t.Errorf("%s did not write down that its level was changed: %s", p.Name, text)
		}
	}
	if a, err := b.Call(testbed.Root, http.MethodPost, "/v1/log-level", map[string]string{"level": "info+1"}); err != nil || a.Code() != "request.invalid" {
		t.Errorf("got %v, %v; want request.invalid", a, err)
	}
	// Without the launcher the daemon's own is changed, and it is said what was not.
	if err := b.Launcher.Stop(); err != nil {
		t.Fatal(err)
	}
	if r := b.CLI(testbed.Root, "log-level", "warn"); r.Code != 1 || !strings.HasPrefix(r.Out, "batchwardend          warn\nbatchwarden-launcher  not known: ") {
		t.Errorf("without the launcher: exit %d, %q, %q", r.Code, r.Out, r.Err)
	}
}
