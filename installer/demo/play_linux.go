package main

import (
	"context"
	"fmt"
	"strings"

	"batchwarden/installer/testbed"
)

// A try is something to type in the playground. The tests run each one as it
// is printed.
type try struct {
	what    string
	command string // for a shell that has the playground's environment
	code    int
	says    string // part of what comes out
}

// tries are the playground's commands.
func tries(b *testbed.Bed) []try {
	agent := "runuser -u " + b.Accounts.LSAM.Name + " -- batchwarden "
	asked := "--realm " + testbed.Realm + " --subject " + testbed.User
	return []try{
		{"how the service is", "batchwarden status", 0, "online"},
		{"a job as " + b.Accounts.Payroll.Name, agent + "run " + asked + " --as payroll -- /usr/bin/id", 0, "(" + b.Accounts.Payroll.Name + ")"},
		{"why a request is denied (exit code 1)", agent + "explain --realm " + testbed.Realm + " --subject " + testbed.Nobody + " --as payroll", 1, testbed.Nobody},
		{"the API without our client", `curl -s --unix-socket "$BATCHWARDEN_SOCKET" http://batchwarden/v1/whoami`, 0, `"operator":true`},
		{"the password, straight to a program", agent + "retrieve " + asked + " payroll | sha256sum", 0, "  -"},
		{"who can use which batch user, by the policy in Vault", "batchwarden admin review --agent " + testbed.Realm + "=" + testbed.Agent, 0, testbed.User},
		{"what the auditor sees", "tail -n 3 " + b.AuditFile(), 0, `"`},
	}
}

// environment is what a shell in the playground needs.
func environment(b *testbed.Bed) []string {
	return []string{
		"export PATH=" + b.Bin + ":$PATH",
		"export BATCHWARDEN_SOCKET=" + b.Socket,
		"export " + strings.Join(b.AdminEnviron(), " "),
	}
}

// play starts everything, says how to use it, and waits for ctx to end.
func play(ctx context.Context, b *testbed.Bed) error {
	fmt.Println("setting up …")
	if err := b.Start(); err != nil {
		return err
	}
	fmt.Printf("\n%s\n\n  %s\n\n%s\n", bold("A playground runs. In another root shell, paste:"),
		strings.Join(environment(b), "\n  "), bold("and try:"))
	for _, t := range tries(b) {
		fmt.Printf("\n  %s\n  %s\n", dim("# "+t.what), t.command)
	}
	fmt.Printf("\nConfiguration and limits: %s   logs: %s\n%s\n", b.Etc, b.Logs, bold("Ctrl-C ends it and removes everything."))
	select {
	case <-ctx.Done():
		fmt.Println()
		return nil
	case <-b.Daemon.Ended():
		return fmt.Errorf("the daemon has ended: %s\n%s", b.Daemon.Outcome(), b.Logbook(20))
	case <-b.Launcher.Ended():
		return fmt.Errorf("the launcher has ended: %s\n%s", b.Launcher.Outcome(), b.Logbook(20))
	}
}
