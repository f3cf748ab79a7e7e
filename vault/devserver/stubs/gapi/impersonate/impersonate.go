// Package impersonate satisfies the jwt method's imports in place of a cloud's
// client. Asking it for anything fails.
package impersonate

import (
	"context"
	"errors"

	"golang.org/x/oauth2"
)

type CredentialsConfig struct {
	TargetPrincipal string
	Scopes          []string
	Subject         string
}

func CredentialsTokenSource(context.Context, CredentialsConfig, ...any) (oauth2.TokenSource, error) {
	return nil, errors.New("impersonate: left out of the test server")
}
