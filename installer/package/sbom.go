package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
)

// The part of CycloneDX 1.5 that is used here. There is no serial number, and the time is the commit's, so that the
// same programs have the same bill.
type cycloneDX struct {
	Format       string       `json:"bomFormat"`
	Spec         string       `json:"specVersion"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Ref        string         `json:"bom-ref"`
	Type       string         `json:"type"`
	Name       string         `json:"name"`
	Version    string         `json:"version"`
	PURL       string         `json:"purl,omitempty"`
	Hashes     []hash         `json:"hashes,omitempty"`
	Licences   []licenceEntry `json:"licenses"`
	Properties []property     `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type licenceEntry struct {
	Licence struct {
		ID string `json:"id"`
	} `json:"license"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn"`
}

// bill is the bill of materials: the programs, what each of them contains, and under which licence.
func bill(version string, at time.Time, programs []program, all []module, under map[module]licence) ([]byte, error) {
	whole := component{Ref: "batchwarden", Type: "application", Name: "batchwarden", Version: version, Licences: entries("Apache-2.0")}
	b := cycloneDX{
		Format: "CycloneDX", Spec: "1.5", Version: 1,
		Metadata: metadata{Timestamp: at.UTC().Format(time.RFC3339), Component: whole},
	}
	top := dependency{Ref: whole.Ref, DependsOn: []string{}}
	for _, p := range programs {
		ref := "program:" + p.name
		top.DependsOn = append(top.DependsOn, ref)
		b.Components = append(b.Components, component{
			Ref: ref, Type: "application", Name: p.name, Version: version,
			Hashes: []hash{{"SHA-256", p.sha256}}, Licences: entries("Apache-2.0"),
		})
		needs := dependency{Ref: ref, DependsOn: []string{}}
		for _, m := range p.modules {
			needs.DependsOn = append(needs.DependsOn, m.purl())
		}
		b.Dependencies = append(b.Dependencies, needs)
	}
	for _, m := range all {
		c := component{Ref: m.purl(), Type: "library", Name: m.path, Version: m.version, PURL: m.purl(), Licences: entries(under[m].ids...)}
		if m.sum != "" {
			c.Properties = []property{{"go:sum", m.sum}}
		}
		b.Components = append(b.Components, c)
	}
	b.Dependencies = append(b.Dependencies, top)
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(b)
	return text.Bytes(), err
}

func entries(ids ...string) (all []licenceEntry) {
	for _, id := range ids {
		var e licenceEntry
		e.Licence.ID = id
		all = append(all, e)
	}
	return all
}

// purl names a module as scanners look it up.
func (m module) purl() string { return "pkg:golang/" + strings.ToLower(m.path) + "@" + m.version }
