// Command package writes what a package of batchwarden says about its parts:
//
//	package parts --version V --date T --out DIR PROGRAM...   copyright, licences and bill of materials of these programs
//	package licences GO.MOD                                   checks the licences of all that go.mod requires
//
// What the programs are made of is read from the programs themselves, and the texts from the modules they were built
// from. The rest of a package's making is installer/package/dist.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "package:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("which of parts and licences?")
	}
	flags := flag.NewFlagSet("package "+args[0], flag.ContinueOnError)
	cache := flags.String("modcache", os.Getenv("GOMODCACHE"), "where go keeps modules: go env GOMODCACHE")
	root := flags.String("goroot", os.Getenv("GOROOT"), "where Go lies: go env GOROOT")
	version := flags.String("version", "unversioned", "the version of the programs")
	date := flags.String("date", "", "when their commit was made, as 2026-11-22T12:52:58Z")
	dir := flags.String("out", "", "the directory to write to")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	from := sources{cache: *cache, root: *root}
	switch args[0] {
	case "licences":
		return licences(from, flags.Arg(0), out)
	case "parts":
		at, err := time.Parse(time.RFC3339, *date)
		if err != nil {
			return fmt.Errorf("--date: %w", err)
		}
		return parts(from, *version, at, *dir, flags.Args())
	}
	return fmt.Errorf("%s: which of parts and licences?", args[0])
}

// licences says of every module that go.mod requires which licence it has; one that may not be used is an error.
func licences(from sources, file string, out io.Writer) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var faults []error
	for _, m := range required(string(text)) {
		l, err := from.licence(m)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		if _, err := fmt.Fprintf(out, "%s %s: %s\n", m.path, m.version, strings.Join(l.ids, ", ")); err != nil {
			return err
		}
	}
	return errors.Join(faults...)
}

// parts writes copyright, licences/ and sbom.cdx.json into dir.
func parts(from sources, version string, at time.Time, dir string, files []string) error {
	var programs []program
	var all []module
	for _, file := range files {
		p, err := read(file)
		if err != nil {
			return err
		}
		programs, all = append(programs, p), append(all, p.modules...)
	}
	slices.SortFunc(all, func(a, b module) int { return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.version, b.version)) })
	all = slices.Compact(all)
	under := map[module]licence{}
	for _, m := range all {
		l, err := from.licence(m)
		if err != nil {
			return err
		}
		under[m] = l
	}
	if err := os.MkdirAll(filepath.Join(dir, "licences"), 0o755); err != nil {
		return err
	}
	for m, l := range under {
		name := strings.ReplaceAll(m.path, "/", "_") + "@" + m.version + ".txt"
		if err := os.WriteFile(filepath.Join(dir, "licences", name), []byte(l.text), 0o644); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "copyright"), []byte(copyright(all, under)), 0o644); err != nil {
		return err
	}
	sbom, err := bill(version, at, programs, all, under)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "sbom.cdx.json"), sbom, 0o644)
}

// copyright is Debian's machine-readable copyright file.
func copyright(all []module, under map[module]licence) string {
	var b strings.Builder
	b.WriteString(`Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: batchwarden
Comment: The programs contain the modules below and Go's standard library.
 The full text of each one's licence lies in the directory licences beside
 this file, and sbom.cdx.json says which program contains which of them.

Files: *
Copyright: The batchwarden authors
License: Apache-2.0
`)
	for _, m := range all {
		fmt.Fprintf(&b, "\nFiles: %s@%s\nCopyright:", m.path, m.version)
		for i, line := range under[m].copyright {
			if i > 0 {
				b.WriteString("\n ")
			}
			b.WriteString(" " + line)
		}
		fmt.Fprintf(&b, "\nLicense: %s\n", strings.Join(under[m].ids, " and "))
	}
	used := []string{"Apache-2.0"}
	for _, l := range under {
		used = append(used, l.ids...)
	}
	slices.Sort(used)
	for _, id := range slices.Compact(used) {
		where := "The text lies in the directory licences beside this file."
		if id == "Apache-2.0" || id == "MPL-2.0" {
			where += "\n On Debian systems it is also in /usr/share/common-licenses/" + id + "."
		}
		fmt.Fprintf(&b, "\nLicense: %s\n %s\n", id, where)
	}
	return b.String()
}
