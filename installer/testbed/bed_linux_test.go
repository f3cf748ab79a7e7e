package testbed

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"batchwarden/ipc/wire"
)

func TestBedConfigurationIsValid(t *testing.T) {
	b := New(t, Options{})
	r := b.CLI(Root, "config", "check", b.ConfigFile(), "--limits", b.LimitsFile())
	if r.Code != 0 || strings.Contains(r.Err, "warning") {
		t.Errorf("config check: exit code %d\n%s%s", r.Code, r.Out, r.Err)
	}
}

func TestBedRunsJobsAsAnotherAccount(t *testing.T) {
	b := New(t, Options{})
	for _, c := range []struct {
		name string
		as   Account
		args []string
		code int
		out  string
		err  string
	}{
		{"payroll", b.Accounts.LSAM, []string{"--subject", User, "--as", "payroll", "--", "/usr/bin/id", "-un"}, 0, b.Accounts.Payroll.Name + "\n", ""},
		{"reports", b.Accounts.LSAM, []string{"--subject", User, "--as", "reports", "--", "/usr/bin/id", "-un"}, 0, b.Accounts.Reports.Name + "\n", ""},
		{"its own exit code", b.Accounts.LSAM, []string{"--subject", User, "--as", "payroll", "--", "/bin/sh", "-c", "exit 9"}, 9, "", ""},
		{"denied", b.Accounts.LSAM, []string{"--subject", Nobody, "--as", "payroll", "--", "/usr/bin/id"}, 125, "", wire.PolicyDenied},
		{"a stranger", b.Accounts.Stranger, []string{"--subject", User, "--as", "payroll", "--", "/usr/bin/id"}, 125, "", wire.CallerUnknown},
		{"an operator without a client entry", Root, []string{"--subject", User, "--as", "payroll", "--", "/usr/bin/id"}, 125, "", wire.CallerForbidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := b.CLI(c.as, append([]string{"run", "--realm", Realm}, c.args...)...)
			if r.Code != c.code || r.Out != c.out || !strings.Contains(r.Err, c.err) {
				t.Errorf("got exit code %d, %q, %q; want %d, %q, %q", r.Code, r.Out, r.Err, c.code, c.out, c.err)
			}
		})
	}
	records, err := b.Audit()
	if err != nil {
		t.Fatal(err)
	}
	if len(records) < 6 {
		t.Errorf("%d audit records, want one for each decision and end: %v", len(records), records)
	}
}

func TestBedComesBackAfterKills(t *testing.T) {
	b := New(t, Options{})
	for _, kill := range []func() error{
		func() error { b.Daemon.Kill(); return b.StartDaemon() },
		func() error { b.Launcher.Kill(); return b.StartLauncher() },
		b.RestartDaemon,
		b.RestartLauncher,
	} {
		if err := kill(); err != nil {
			t.Fatal(err)
		}
		if err := b.WaitHealthy(); err != nil {
			t.Fatal(err)
		}
		r := b.CLI(b.Accounts.LSAM, "run", "--realm", Realm, "--subject", User, "--as", "payroll", "--", "/usr/bin/id", "-u")
		if want := fmt.Sprintln(b.Accounts.Payroll.UID); r.Code != 0 || r.Out != want {
			t.Errorf("got exit code %d, %q, %q; want %q", r.Code, r.Out, r.Err, want)
		}
	}
}

func TestBedEndsWithNothingLeft(t *testing.T) {
	b := New(t, Options{})
	r := b.CLI(b.Accounts.LSAM, "run", "--detach", "--realm", Realm, "--subject", User, "--as", "payroll", "--", "/bin/sleep", "100")
	if r.Code != 0 {
		t.Fatalf("run --detach: %d %s", r.Code, r.Err)
	}
	if pids, err := ProcessesOf(b.Accounts.Payroll.UID); err != nil || len(pids) == 0 {
		t.Errorf("the job: %v, %v; want it running", pids, err)
	}
	begun := time.Now()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("Close took %v", took)
	}
	left := Leftovers("none", os.Getpid())
	if pids, err := ProcessesOf(b.Accounts.Payroll.UID); err != nil || len(pids) > 0 || len(left) > 0 {
		t.Errorf("left: %v, payroll's processes %v, %v", left, pids, err)
	}
}
