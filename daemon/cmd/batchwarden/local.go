package main

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"batchwarden/daemon/config"
	"batchwarden/daemon/strict"
	"batchwarden/daemon/version"
)

// parent is a command that only has others below it.
func parent(name, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return fmt.Errorf("%s is not a command by itself; it wants another word after it", name)
		},
	}
	cmd.AddCommand(children...)
	return cmd
}

func (a *app) configCommand() *cobra.Command {
	var limits string
	check := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a configuration, without the service and without root; exit code 78 when it has faults",
		Long: `Check batchwarden.yaml, or FILE, with clients.d beside it, and with --limits a limits.yaml. Faults are printed with
file, line, column and place, all of them at once. What is right in itself and would still be refused where it lies, such
as a file that others can write, is a warning.`,
		Args: cobra.MaximumNArgs(1),
		RunE: do(func(_ *cobra.Command, args []string) error {
			file := config.DefaultFile
			if len(args) == 1 {
				file = args[0]
			}
			return a.checkConfig(file, limits)
		}),
	}
	check.Flags().StringVar(&limits, "limits", "", "check this limits.yaml too")
	return parent("config", "Check a configuration", check)
}

// verdict is what config check prints as JSON.
type verdict struct {
	Valid    bool     `json:"valid"`
	Files    []string `json:"files"`
	Faults   []fault  `json:"faults"`
	Warnings []string `json:"warnings"`
}

type fault struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Place  string `json:"place,omitempty"`
	Text   string `json:"text"`
}

func (a *app) checkConfig(file, limits string) error {
	v := verdict{Files: []string{file}, Faults: []fault{}, Warnings: []string{}}
	c, warnings, err := config.Check(file)
	if c != nil {
		v.Files = c.Files
	}
	v.Warnings = append(v.Warnings, warnings...)
	all := faultsOf(file, err)
	if limits != "" {
		v.Files = append(v.Files, limits)
		_, warnings, err := config.CheckLimits(limits)
		v.Warnings = append(v.Warnings, warnings...)
		all = append(all, faultsOf(limits, err)...)
	}
	for _, f := range all {
		v.Faults = append(v.Faults, fault(f))
	}
	v.Valid = len(all) == 0
	if a.json {
		if err := a.print(v); err != nil {
			return err
		}
	} else {
		for _, w := range v.Warnings {
			fmt.Fprintf(a.errs, "warning: %s\n", clean(w))
		}
		for _, f := range all {
			fmt.Fprintln(a.errs, clean(f.String()))
		}
	}
	if !v.Valid {
		return &failure{exitConfig, fmt.Errorf("%s is not a valid configuration: %s; nothing was changed", file, counted(len(all), "fault"))}
	}
	if a.json {
		return nil
	}
	_, err = fmt.Fprintf(a.out, "%s: ok, %s\n", strings.Join(v.Files, ", "), counted(len(v.Warnings), "warning"))
	return err
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// faultsOf are the faults that an error is, nil for none.
func faultsOf(file string, err error) strict.Faults {
	if err == nil {
		return nil
	}
	if fs, are := errors.AsType[strict.Faults](err); are {
		return fs
	}
	return strict.Faults{{File: file, Text: err.Error()}}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  cobra.NoArgs,
		RunE: do(func(*cobra.Command, []string) error {
			v := build{version.Number, version.Commit, version.Date, runtime.Version()}
			return a.show(v, fmt.Sprintf("batchwarden %s (commit %s of %s, %s)\n", v.Version, v.Commit, v.Date, v.Go))
		}),
	}
}

type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Date    string `json:"date"` // the commit's
	Go      string `json:"go"`
}
