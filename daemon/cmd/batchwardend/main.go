// Command batchwardend is the daemon: it decides, and holds the secrets.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"batchwarden/daemon"
	"batchwarden/daemon/config"
	"batchwarden/daemon/logs"
	"batchwarden/daemon/policy"
	"batchwarden/daemon/policy/automic"
	"batchwarden/daemon/policy/opcon"
	"batchwarden/daemon/policy/stonebranch"
	"batchwarden/daemon/version"
	"batchwarden/platform/service"
)

// Exit codes of DESIGN.md 7 and sysexits.h.
const (
	exitFailed = 1
	exitUsage  = 64
	exitConfig = 78
)

// models are the policy models that this version decides by.
var models = map[string]policy.Model{
	"automic":     automic.Model{},
	"opcon":       opcon.Model{},
	"stonebranch": stonebranch.Model{},
}

func main() {
	file := flag.String("config", config.DefaultFile, "configuration `file`")
	show := flag.Bool("version", false, "print the version and exit")
	flag.Parse()
	switch {
	case *show:
		fmt.Println("batchwardend", version.Number)
		return
	case flag.NArg() > 0:
		fmt.Fprintf(os.Stderr, "batchwardend: unexpected argument %q\n", flag.Arg(0))
		os.Exit(exitUsage)
	}
	os.Exit(run(*file))
}

func run(file string) int {
	hangups := service.Hangups() // from here on it does not end us
	c, err := config.Load(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitConfig
	}
	log, level := logs.New(os.Stderr, c.Log)
	again := daemon.Reading{File: file, Hangups: hangups, Level: level}
	ctx, stop := service.Context()
	defer stop()
	err = daemon.Run(ctx, c, again, models, daemon.Program{Version: version.Number, Commit: version.Commit}, log)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, daemon.ErrSetup), errors.Is(err, errors.ErrUnsupported):
		log.Error("cannot start", "err", err)
		return exitConfig
	}
	log.Error("stopped", "err", err)
	return exitFailed
}
