// Command batchwarden-sync reads from Vault what this machine is entitled to,
// seals it, and ends. The launcher starts it as a user of its own, with two
// pipes of the daemon's and an empty environment; vault/errand says what goes
// through them. It alone sees tokens and what Vault answers.
//
// It exits 0 when it could report, also when the report says that nothing
// worked, or when nothing was wanted; 64 when it was called wrongly, 70 when the
// daemon did not hear it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"batchwarden/daemon/config"
	"batchwarden/platform/confine"
	"batchwarden/platform/lockmem"
	"batchwarden/platform/service"
	"batchwarden/vault/errand"
	"batchwarden/vault/remote"
	"batchwarden/vault/sealed"
)

const (
	exitUsage    = 64
	exitNotHeard = 70
)

func main() {
	file := flag.String("config", config.DefaultFile, "configuration `file`")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(exitUsage)
	}
	service.ShareProcessors() // the others are the server's or the jobs'
	collectLater()
	if err := run(*file, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "batchwarden-sync:", err)
		os.Exit(exitNotHeard)
	}
}

// collectLater lets garbage lie, as the process ends soon: a poll is over before
// its first collection. The memory limit is for runs that read everything.
func collectLater() {
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(128 << 20)
}

// run carries out one errand. Its error is about the pipes; all else is in the report.
func run(file string, in io.Reader, out io.Writer) error {
	source, machine, sourceErr := prepare(file) // before any key is in this process
	keys, task, orders, err := errand.Receive(in)
	if errors.Is(err, io.EOF) {
		return nil // we were started ahead, and are not needed
	}
	if err != nil {
		return err
	}
	defer keys.Wipe()
	w := errand.NewWriter(out)
	if sourceErr == nil && task.Machine != "" && task.Machine != machine {
		sourceErr = fmt.Errorf("the configuration's machine is %q, and the service runs for %q until it is restarted", machine, task.Machine)
	}
	if sourceErr != nil {
		return w.Message(errand.Message{Report: remote.Unable(sourceErr)})
	}
	report, err := source.Sync(context.Background(), keys, task, remote.Out{
		Put:   func(r sealed.Record) error { return w.Message(errand.Message{Put: &r}) },
		Token: func(t sealed.Token) error { return w.Message(errand.Message{Token: &t}) },
		Known: func() ([]errand.Known, error) {
			if err := errors.Join(orders.Silent(), w.Message(errand.Message{WantKnown: true})); err != nil {
				return nil, err
			}
			return orders.Known()
		},
	})
	if err != nil {
		return err
	}
	return w.Message(errand.Message{Report: report})
}

// prepare reads configuration and credentials, and then gives up whatever the
// errand does not need. Nothing was sent to anybody when it returns.
func prepare(file string) (source *remote.Source, machine string, err error) {
	if err := lockmem.Harden(); err != nil {
		return nil, "", err
	}
	c, err := config.Load(file)
	if err != nil {
		return nil, "", err
	}
	source, err = remote.New(remoteConfig(c))
	if err != nil {
		return nil, "", err
	}
	_, err = confine.Reader(needed()...)
	return source, c.Machine, err
}

func remoteConfig(c *config.Config) remote.Config {
	v := c.Vault
	return remote.Config{
		Machine: c.Machine, Platforms: c.Platforms, Groups: c.Groups,
		Address: v.Address, CAFile: v.CAFile, ServerName: v.ServerName, Namespace: v.Namespace, Mount: v.Mount,
		Sources: c.Sync.Sources,
		Auth: remote.Auth{
			Method: v.Auth.Method, Mount: v.Auth.Mount, Role: v.Auth.Role,
			RoleIDFile: v.Auth.RoleIDFile, SecretIDFile: v.Auth.SecretIDFile, SecretIDWrapped: v.Auth.SecretIDWrapped,
			CertFile: v.Auth.CertFile, KeyFile: v.Auth.KeyFile,
			JWTFile: v.Auth.JWTFile, TokenFile: v.Auth.TokenFile,
		},
	}
}

// needed is what Go's resolver and TLS may still read.
func needed() []string {
	return []string{
		"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/localtime", "/usr/share/zoneinfo",
		"/etc/ssl", "/etc/pki", "/usr/lib/ssl", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
	}
}
