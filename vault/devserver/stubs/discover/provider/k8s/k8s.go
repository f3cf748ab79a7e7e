// Package k8s is a provider of package discover that knows no address.
package k8s

import "log"

type Provider struct{}

func (*Provider) Addrs(map[string]string, *log.Logger) ([]string, error) { return nil, nil }
func (*Provider) Help() string                                           { return "" }
