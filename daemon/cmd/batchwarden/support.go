package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchwarden/daemon/config"
	"batchwarden/daemon/doctor"
	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
)

// How much goes into a bundle.
const (
	supportRecords = 500  // of the audit log, the newest
	supportLines   = 2000 // of the journal, likewise
	supportList    = 5000 // of a directory
	supportTime    = 30 * time.Second
)

// supportOptions are the flags of support.
type supportOptions struct {
	out          string
	config       string
	limits       string
	withoutNames bool
}

func (a *app) supportCommand() *cobra.Command {
	var o supportOptions
	cmd := &cobra.Command{
		Use:   "support [--out FILE.tar.gz] [--without-names]",
		Short: "Collect into one file what somebody needs who is to help",
		Long: `Collect versions, configuration, status, what doctor finds, recent logs and audit records, units and facts about the host in one file,
for somebody who is to help. No password, token or key is in it: of files that hold one there are name, owner, mode and
size. It works also when the service is down, and as any user; what could not be looked at is said in README.txt.
Look through the file before you send it: subjects, accounts, hosts and paths are in it by their names.

--without-names gives the controllers' users other names, the same all through the bundle, and leaves out commands'
arguments and environments. Account names and host names stay.`,
		Example: "  sudo batchwarden support --out /root/for-support.tar.gz --without-names",
		Args:    cobra.NoArgs,
		RunE:    do(func(cmd *cobra.Command, _ []string) error { return a.support(cmd.Context(), o) }),
	}
	f := cmd.Flags()
	f.StringVar(&o.out, "out", "", "the `FILE` to make (default batchwarden-support-HOST-TIME.tar.gz in this directory)")
	f.StringVar(&o.config, "config", config.DefaultFile, "the service's configuration")
	f.StringVar(&o.limits, "limits", config.DefaultLimitsFile, "the host owner's limits")
	f.BoolVar(&o.withoutNames, "without-names", false, "controllers' users by other names, no arguments of commands")
	return cmd
}

// supported is what support prints as JSON.
type supported struct {
	File    string   `json:"file"`
	Files   int      `json:"files"`
	Missing []string `json:"missing"`
}

func (a *app) support(ctx context.Context, o supportOptions) error {
	ctx, cancel := context.WithTimeout(ctx, supportTime)
	defer cancel()
	if o.out == "" {
		host, _ := os.Hostname() // without one it is a name all the same
		o.out = fmt.Sprintf("batchwarden-support-%s-%s.tar.gz", cmp.Or(host, "host"), a.now().UTC().Format("20060102-150405"))
	}
	b := &bundle{at: a.now()}
	c := b.configuration(o)
	if c != nil && a.socket == client.DefaultSocket {
		a.socket = c.Socket
	}
	b.versions()
	b.service(ctx, a.socket, o.withoutNames)
	b.doctor(a.examine(ctx, installation{file: o.config, limits: o.limits}), o.withoutNames)
	b.logs(ctx)
	b.records(ctx, c, o.withoutNames)
	b.host(c, o)
	if o.withoutNames {
		b.rename()
	}
	if err := b.write(o.out); err != nil {
		return fmt.Errorf("the bundle was not made: %w; name another file with --out", err)
	}
	s := supported{File: o.out, Files: len(b.files), Missing: append([]string{}, b.missing...)}
	return a.show(s, s.text())
}

func (s *supported) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s. Look through it before you send it.\n", clean(s.File), counted(s.Files, "file"))
	if len(s.Missing) > 0 {
		b.WriteString("Not in it:\n")
		for _, m := range s.Missing {
			fmt.Fprintf(&b, "  %s\n", clean(m))
		}
	}
	return b.String()
}

// service is what batchwardend says of itself.
func (b *bundle) service(ctx context.Context, socket string, withoutNames bool) {
	c := client.New(socket)
	defer c.Close()
	for _, part := range []struct {
		name string
		ask  func(context.Context) (any, error)
	}{
		{"service/health.json", func(ctx context.Context) (any, error) { return c.Health(ctx) }},
		{"service/whoami.json", func(ctx context.Context) (any, error) { return c.Whoami(ctx) }},
		{"service/status.json", func(ctx context.Context) (any, error) { return c.Status(ctx) }},
		{"service/log-level.json", func(ctx context.Context) (any, error) { return c.LogLevel(ctx) }},
		{"service/batch-users.json", func(ctx context.Context) (any, error) { return c.BatchUsers(ctx) }},
	} {
		v, err := within(ctx, askTime, part.ask)
		if err != nil {
			b.miss(part.name, err)
			if errors.Is(err, client.ErrUnreachable) {
				return // the rest would wait as long, for the same
			}
			continue
		}
		if withoutNames {
			leaveOutFaults(v)
		}
		b.json(part.name, v)
	}
}

// leaveOutFaults takes away what is said about policy documents: it quotes them, and they are about users.
func leaveOutFaults(v any) {
	findings := func(list []wire.Finding) {
		for i, f := range list {
			if strings.HasPrefix(f.Code, "policy.") || f.Code == "document.refused" {
				list[i].Detail = leftOut
			}
		}
	}
	switch v := v.(type) {
	case *wire.Health:
		findings(v.Reasons)
	case *wire.Status:
		findings(v.Problems)
		findings(v.Sync.Faults)
		for i := range v.Policies {
			if v.Policies[i].Detail != "" {
				v.Policies[i].Detail = leftOut
			}
		}
	}
}

const leftOut = "(left out)"

// doctor is what "batchwarden doctor" finds.
func (b *bundle) doctor(r *report, withoutNames bool) {
	for i, c := range r.Checks {
		about := strings.HasPrefix(c.Name, "polic") || strings.HasPrefix(c.Name, "document") || c.Name == "sync"
		if withoutNames && about && c.Result != doctor.OK {
			r.Checks[i].Reason = leftOut // it may quote a policy document
		}
	}
	b.json("doctor.json", r)
}

// json adds v as JSON.
func (b *bundle) json(name string, v any) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		b.miss(name, err)
		return
	}
	b.add(name, string(text)+"\n")
}
