package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestIdentify(t *testing.T) {
	for text, want := range map[string]string{
		"  Apache License\n  Version 2.0, January 2004":                                                                         "Apache-2.0",
		"Mozilla Public License, version 2.0\nSecondary: GNU General Public License":                                            "MPL-2.0",
		"Permission is hereby granted, free of charge, to any person\nobtaining a copy":                                         "MIT",
		"Permission to use, copy, modify, and/or distribute this software for any\npurpose":                                     "ISC",
		"Redistribution and use in source and binary forms, with or\nwithout":                                                   "BSD-2-Clause",
		"Redistribution and use in source and binary forms ... Neither the name of":                                             "BSD-3-Clause",
		"GNU GENERAL PUBLIC LICENSE Version 2, June 1991 Everyone is permitted to copy\nand distribute verbatim copies of this": "a licence of the GNU project",
		"This software is provided 'as-is', without any express or implied\nwarranty.":                                          "Zlib",
		"All rights reserved.": "",
	} {
		if got := identify(text); got != want {
			t.Errorf("identify(%q) = %q, want %q", text, got, want)
		}
	}
}

// TestLicence reads modules that are made here: one that is fine, and those that nobody has agreed to.
func TestLicence(t *testing.T) {
	const mit = "Copyright (c) 2020 Jane Doe\nPermission is hereby granted, free of charge, to any person obtaining a copy"
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string // of the error
	}{
		{"one that may be used", map[string]string{"LICENSE.md": mit, "NOTICE": "made by Jane"}, ""},
		{"no licence", map[string]string{"README.md": mit}, "there is no licence in"},
		{"GPL", map[string]string{"COPYING": "Everyone is permitted to copy and distribute verbatim copies"}, "a licence of the GNU project is no licence of those we may use"},
		{"GPL beside another", map[string]string{"LICENSE": mit, "LICENSE-GPL": "Everyone is permitted to copy and distribute verbatim copies"}, "LICENSE-GPL: a licence of the GNU project"},
		{"unknown", map[string]string{"LICENCE": "All rights reserved."}, "this text is no licence"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cache := t.TempDir()
			m := module{path: "example.test/Jane/Tool", version: "v1.0.0"}
			dir := filepath.Join(cache, "example.test", "!jane", "!tool@v1.0.0")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for name, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			l, err := sources{cache: cache}.licence(m)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "example.test/Jane/Tool v1.0.0") {
					t.Errorf("got %v, want an error with %q", err, c.want)
				}
				return
			}
			if err != nil || !slices.Equal(l.ids, []string{"MIT"}) || !slices.Equal(l.copyright, []string{"(c) 2020 Jane Doe"}) || !strings.Contains(l.text, "made by Jane") {
				t.Errorf("got %+v and %v", l, err)
			}
		})
	}
}

// TestDependenciesAreExplained holds the table of DEVELOPING.md against go.mod.
func TestDependenciesAreExplained(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../DEVELOPING.md")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for line := range strings.Lines(string(mod)) {
		if !strings.HasSuffix(line, "// indirect\n") {
			for _, m := range required(line) {
				want = append(want, m.path)
			}
		}
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]+) \\| ([^|]+) \\|$").FindAllStringSubmatch(string(text), -1) {
		got = append(got, row[1])
	}
	slices.Sort(want)
	slices.Sort(got)
	if len(want) < 5 || !slices.Equal(got, want) {
		t.Errorf("installer/DEVELOPING.md explains %q, and go.mod requires %q", got, want)
	}
}
