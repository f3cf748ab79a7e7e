package vaulttest

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/vault/api"
)

// MountSource makes a place for sources of passwords, such as "ldap" or "os".
//
// It is a stand-in: the engines that keep static LDAP roles and the secrets of
// operating systems are not part of the server. A KV v1 engine at their path
// answers as they do, with the members that PutSource writes; it rotates
// nothing by itself.
func (s *Server) MountSource(ctx context.Context, mount string) error {
	return s.root.Sys().MountWithContext(ctx, mount, &api.MountInput{Type: "kv", Options: map[string]string{"version": "1"}})
}

// PutSource sets what lies at a path of such a place. An engine of static roles
// answers with username, password, ttl in seconds and last_vault_rotation.
func (s *Server) PutSource(ctx context.Context, at string, data map[string]any) error {
	_, err := s.write(ctx, at, data)
	return err
}

// AllowSources lets the machine read everything below the paths, and nothing
// else of what SetRules may have allowed or denied it.
func (s *Server) AllowSources(ctx context.Context, machine string, paths ...string) error {
	var rules []Rule
	for _, p := range paths {
		rules = append(rules, Rule{Path: fmt.Sprintf("%s/*", strings.Trim(p, "/")), Capabilities: []string{"read"}})
	}
	return s.SetRules(ctx, machine, rules...)
}
