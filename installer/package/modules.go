package main

import (
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// allowed are the licences, by their SPDX names, under which the programs may contain what others wrote. All of them
// let us ship binaries under the Apache License; of one that is not here, somebody decides first.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0", "Zlib"}

// standard is what Go's standard library is called where modules have a path.
const standard = "std"

// A module is something that a program contains.
type module struct{ path, version, sum string }

// A program is one of ours, and what it contains.
type program struct {
	name, sha256 string
	modules      []module // none in one that is written in C
}

func read(file string) (program, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return program{}, err
	}
	sum := sha256.Sum256(text)
	p := program{name: filepath.Base(file), sha256: hex.EncodeToString(sum[:])}
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return p, nil // not Go's
	}
	version, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ")
	p.modules = append(p.modules, module{path: standard, version: version})
	for _, m := range info.Deps {
		if m.Replace != nil {
			return p, fmt.Errorf("%s contains a replaced module: %s", p.name, m.Path)
		}
		p.modules = append(p.modules, module{m.Path, m.Version, m.Sum})
	}
	return p, nil
}

// required are the modules of a go.mod, needed directly or not.
func required(text string) (all []module) {
	for _, found := range regexp.MustCompile(`(?m)^(?:require )?\s*([^\s()]+\.[^\s()]+/\S+) (v\S+)`).FindAllStringSubmatch(text, -1) {
		all = append(all, module{path: found[1], version: found[2]})
	}
	return all
}

// sources is where modules and Go itself lie on this machine.
type sources struct{ cache, root string }

// A licence is what a module says of itself.
type licence struct {
	ids       []string // SPDX names
	copyright []string
	text      string // of every file that has to be passed on
}

// licence reads the files with which a module, at its top, says how it may be used. One that says nothing, or
// something that is not allowed, is an error.
func (s sources) licence(m module) (l licence, err error) {
	dir := filepath.Join(s.cache, filepath.FromSlash(escaped(m.path)+"@"+m.version))
	if m.path == standard {
		dir = s.root
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return l, fmt.Errorf("%s %s: %w; run: go mod download", m.path, m.version, err)
	}
	for _, e := range entries {
		kind := regexp.MustCompile(`(?i)^(LICEN[CS]E|COPYING|NOTICE|PATENTS)([-.].*)?$`).FindStringSubmatch(e.Name())
		if kind == nil || e.IsDir() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return l, err
		}
		l.text += fmt.Sprintf("%s of %s %s\n\n%s\n", e.Name(), m.path, m.version, text)
		l.copyright = append(l.copyright, holders(string(text))...)
		if k := strings.ToUpper(kind[1]); k == "NOTICE" || k == "PATENTS" {
			continue
		}
		id := identify(string(text))
		if !slices.Contains(allowed, id) {
			return l, fmt.Errorf("%s %s: %s: %s is no licence of those we may use: %s",
				m.path, m.version, e.Name(), cmp.Or(id, "this text"), strings.Join(allowed, ", "))
		}
		l.ids = append(l.ids, id)
	}
	if len(l.ids) == 0 {
		return l, fmt.Errorf("%s %s: there is no licence in %s", m.path, m.version, dir)
	}
	slices.Sort(l.ids)
	l.ids = slices.Compact(l.ids)
	if len(l.copyright) == 0 {
		l.copyright = []string{"The authors of " + m.path}
	}
	return l, nil
}

// identify names the licence that the text is, or returns "". What is matched are sentences that no other has.
func identify(text string) string {
	text = strings.ToLower(strings.Join(strings.Fields(text), " "))
	has := func(s string) bool { return strings.Contains(text, s) }
	switch {
	case has("everyone is permitted to copy and distribute verbatim copies"):
		return "a licence of the GNU project"
	case has("mozilla public license") && has("2.0"):
		return "MPL-2.0"
	case has("apache license") && has("version 2.0"):
		return "Apache-2.0"
	case has("permission is hereby granted, free of charge, to any person obtaining a copy"):
		return "MIT"
	case has("permission to use, copy, modify, and/or distribute this software for any purpose"),
		has("permission to use, copy, modify, and distribute this software for any purpose"):
		return "ISC"
	case has("this software is provided 'as-is', without any express or implied warranty"):
		return "Zlib"
	case has("redistribution and use in source and binary forms") && has("neither the name"):
		return "BSD-3-Clause"
	case has("redistribution and use in source and binary forms"):
		return "BSD-2-Clause"
	}
	return ""
}

// holders are the lines that say whose the work is.
func holders(text string) (found []string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		of, is := strings.CutPrefix(line, "Copyright ")
		if is && strings.ContainsFunc(of, unicode.IsDigit) && !strings.ContainsAny(of, "[{") && !slices.Contains(found, of) {
			found = append(found, of)
		}
	}
	return found
}

// escaped is a module's path as a directory's name, where capitals may mean nothing.
func escaped(path string) string {
	return regexp.MustCompile(`[A-Z]`).ReplaceAllStringFunc(path, func(s string) string { return "!" + strings.ToLower(s) })
}
