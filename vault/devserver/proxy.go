package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/openbao/openbao/api/v2"
	"github.com/openbao/openbao/command/agentproxyshared/auth"
	"github.com/openbao/openbao/command/agentproxyshared/auth/approle"
	"github.com/openbao/openbao/command/agentproxyshared/cache"
	"github.com/openbao/openbao/command/agentproxyshared/sink"
	"github.com/openbao/openbao/command/agentproxyshared/sink/inmem"
)

// proxy is "bao proxy" with auto_auth by AppRole, a cache, use_auto_auth_token and one Unix listener: the same parts
// of OpenBao, put together as its command does. That command itself would bring in all of OpenBao's.
//
// It says "ready <socket>" on standard output once it has a token, and ends with its standard input.
func proxy(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("proxy", flag.ExitOnError)
	address := flags.String("address", "", "server's `address`")
	ca := flags.String("ca", "", "CA `file` (PEM)")
	mount := flags.String("mount", "auth/approle", "`path` of the AppRole method")
	role := flags.String("role-id", "", "`file`")
	secret := flags.String("secret-id", "", "`file`")
	listen := flags.String("listen", "", "Unix `socket`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	log := hclog.New(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Error})
	config := api.DefaultConfig()
	config.Address = *address
	if err := config.ConfigureTLS(&api.TLSConfig{CACert: *ca}); err != nil {
		return err
	}
	client, err := api.NewClient(config)
	if err != nil {
		return err
	}
	client.ClearToken()
	method, err := approle.NewApproleAuthMethod(&auth.AuthConfig{Logger: log, MountPath: *mount, Config: map[string]any{
		"role_id_file_path": *role, "secret_id_file_path": *secret, "remove_secret_id_file_after_reading": false,
	}})
	if err != nil {
		return err
	}
	forwarded, err := client.CloneWithHeaders()
	if err != nil {
		return err
	}
	direct, err := cache.NewAPIProxy(&cache.APIProxyConfig{Client: forwarded, Logger: log, UserAgentString: "proxy",
		UserAgentStringFunction: func(agent string) string { return agent }})
	if err != nil {
		return err
	}
	leases, err := cache.NewLeaseCache(&cache.LeaseCacheConfig{Client: forwarded, BaseContext: ctx, Proxier: direct, Logger: log})
	if err != nil {
		return err
	}
	token, err := inmem.New(&sink.SinkConfig{Logger: log}, leases)
	if err != nil {
		return err
	}
	own, err := client.CloneWithHeaders()
	if err != nil {
		return err
	}
	login := auth.NewAuthHandler(&auth.AuthHandlerConfig{Logger: log, Client: own, ExitOnError: true, UserAgent: "proxy", MetricsSignifier: "proxy"})
	sinks := sink.NewSinkServer(&sink.SinkServerConfig{Logger: log, Client: own})
	ln, err := net.Listen("unix", *listen)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/", cache.ProxyHandler(ctx, log, leases, token, true))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 5 * time.Minute,
		ErrorLog: stdlog.New(io.Discard, "", 0)}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 3)
	go func() { ended <- login.Run(ctx, method) }()
	go func() { ended <- sinks.Run(ctx, login.OutputCh, []*sink.SinkConfig{{Logger: log, Sink: token}}) }()
	go func() { ended <- server.Serve(ln) }()
	for token.(sink.SinkReader).Token() == "" {
		select {
		case err := <-ended:
			return errors.Join(errors.New("no token"), err, server.Close())
		case <-ctx.Done():
			return server.Close()
		case <-time.After(10 * time.Millisecond):
		}
	}
	fmt.Printf("ready %s\n", *listen)
	select {
	case err = <-ended:
	case <-ctx.Done():
	}
	return errors.Join(err, server.Close())
}
