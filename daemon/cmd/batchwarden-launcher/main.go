// Command batchwarden-launcher starts jobs and sync workers for the daemon, as root and within the limits of the
// host's owner. SIGTERM and SIGINT end it; jobs go on.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"batchwarden/daemon/config"
	"batchwarden/daemon/limits"
	"batchwarden/daemon/logs"
	"batchwarden/daemon/version"
	"batchwarden/platform/account/nss"
	"batchwarden/platform/launch/become"
	"batchwarden/platform/launch/keeper"
	"batchwarden/platform/pam"
	"batchwarden/platform/service"
)

// exitConfig is sysexits' EX_CONFIG.
const exitConfig = 78

func main() {
	file := flag.String("config", config.DefaultFile, "the configuration `file`")
	limitsFile := flag.String("limits", config.DefaultLimitsFile, "the host owner's limits `file`")
	show := flag.Bool("version", false, "print the version and exit")
	flag.Parse()
	if *show {
		fmt.Println("batchwarden-launcher", version.Number)
		return
	}
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "batchwarden-launcher: unexpected argument %q\n", flag.Arg(0))
		os.Exit(64)
	}
	service.ShareProcessors()
	hangups := service.Hangups() // from here on it does not end us
	parts, again, err := assemble(*file, *limitsFile)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitConfig)
	}
	ctx, stop := service.Context()
	defer stop()
	var watching sync.WaitGroup
	watching.Go(func() { again.run(ctx, hangups) }) // ends with ctx
	err = keeper.Run(ctx, parts)
	stop()
	watching.Wait()
	if err != nil {
		parts.Log.Error("launcher ended", "err", err)
		os.Exit(1)
	}
}

// assemble reads the configuration and names every fault in it. A fault in the limits is not one: until it is mended
// every launch is refused with it.
func assemble(file, limitsFile string) (keeper.Config, *reading, error) {
	c, err := config.Load(file)
	if err != nil {
		return keeper.Config{}, nil, err
	}
	self, selfErr := os.Executable()
	beside := func(name string) string { return filepath.Join(filepath.Dir(self), name) }
	accounts := nss.New(beside("batchwarden-nss"))
	daemon, err := accounts.Lookup(c.Users.Daemon)
	if err != nil {
		err = fmt.Errorf("%s: users.daemon: %w", file, err)
	}
	worker, workerErr := accounts.Lookup(c.Users.Sync)
	if workerErr != nil {
		err = errors.Join(err, fmt.Errorf("%s: users.sync: %w", file, workerErr))
	}
	configFile, absErr := filepath.Abs(file)
	if err := errors.Join(err, selfErr, absErr); err != nil {
		return keeper.Config{}, nil, err
	}
	log, level := logs.New(os.Stderr, c.Log)
	owner := limits.New(limitsFile, []uint32{daemon.UID, worker.UID}, accounts)
	again := newReading(file, limitsFile, c, owner, level, log)
	return keeper.Config{
		Version:       version.Number,
		PublicSocket:  c.Socket,
		SystemdSocket: c.SystemdSocket,
		Socket:        c.Launcher.Socket,
		StateDir:      c.Launcher.StateDir,
		CgroupRoot:    c.Launcher.CgroupRoot,
		DaemonUID:     daemon.UID,
		DaemonGID:     daemon.GID,
		BecomePath:    filepath.Join(filepath.Dir(self), become.Program),
		Sync:          worker,
		SyncPath:      filepath.Join(filepath.Dir(self), "batchwarden-sync"),
		SyncArgs:      []string{"--config", configFile},
		Allow: func(a keeper.Ask) error {
			return owner.Allow(limits.Launch{
				Requester: a.Requester, Account: a.Account, GID: a.GID, Env: a.Env, Command: a.Command,
				Nice: a.Nice, Resources: a.Limits, Own: a.Own,
			})
		},
		Target:      owner.Target,
		Max:         owner.Max,
		Problems:    again.problems,
		Accounts:    accounts,
		PAM:         pam.Program(beside("batchwarden-pam")),
		Bounds:      again.bounds,
		JournalSync: c.Audit.Sync,
		Log:         log,
		Level:       level,
	}, again, nil
}
