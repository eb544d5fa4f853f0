package nodeapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"connectrpc.com/connect/v2"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/nodeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// JoinConfig says who wants to join where.
type JoinConfig struct {
	Servers []string
	Token   string
	Role    identity.Role
	Name    string
	// Keyring is where a server keeps the cluster's keys that it is given.
	Keyring string
	Logger  *slog.Logger
	// Dialer is shared with others; nil: joining has one of its own.
	Dialer *nodeport.Dialer
}

// Join gets an identity its first certificate. It goes on trying while no
// server answers, until ctx ends; it gives up when one refuses.
func Join(ctx context.Context, node *identity.Identity, cfg JoinConfig) error {
	token, err := identity.ParseToken(cfg.Token)
	if err != nil {
		return fmt.Errorf("join cluster: %w", err)
	}
	if len(cfg.Servers) == 0 {
		return errors.New("join cluster: no server's address is given")
	}
	csr, err := node.Request()
	if err != nil {
		return fmt.Errorf("join cluster: %w", err)
	}
	dialer := cfg.Dialer
	if dialer == nil {
		dialer = nodeport.NewDialer(nodeport.DialerConfig{Logger: cfg.Logger})
		defer dialer.Close()
	}
	request := &weirv1.JoinRequest{Token: cfg.Token, Name: cfg.Name, Csr: csr, Role: string(cfg.Role)}
	said := map[string]string{}
	for tries := (backoff{}); ; {
		for _, address := range cfg.Servers {
			answer, err := joinAt(ctx, dialer, address, token, request)
			if err == nil {
				return install(node, answer, cfg)
			}
			switch {
			case nodeport.WrongPeer(err):
				return fmt.Errorf("join cluster at %s: %w: a token is good for the cluster that made it, make one there", address, err)
			case final(err, cfg.Role):
				return fmt.Errorf("join cluster at %s: %w", address, err)
			}
			if text := err.Error(); said[address] != text { // not each time
				cfg.Logger.Warn("not admitted yet; trying on", "server", address, "error", err)
				said[address] = text
			}
		}
		if !tries.wait(ctx) {
			return fmt.Errorf("join cluster: %w", context.Cause(ctx))
		}
	}
}

func joinAt(ctx context.Context, dialer *nodeport.Dialer, address string, token identity.Token, m *weirv1.JoinRequest) (*weirv1.JoinResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	trust := func(protocols ...string) *tls.Config { return identity.JoinTLS(token, protocols...) }
	l, err := dialBriefly(ctx, dialer, address, trust)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.api.Join(ctx, m)
}

// final tells whether a refusal will be the same next time. A proxy's name may be
// that of its own former life, which ends soon; a server's is taken until somebody
// frees it.
func final(err error, role identity.Role) bool {
	code := connect.CodeOf(err)
	refusals := []connect.Code{connect.CodeUnauthenticated, connect.CodePermissionDenied, connect.CodeInvalidArgument}
	return slices.Contains(refusals, code) || code == connect.CodeAlreadyExists && role == identity.RoleServer
}

// install keeps what the node was given: the certificate last, by which it is
// seen to have joined.
func install(node *identity.Identity, m *weirv1.JoinResponse, cfg JoinConfig) error {
	id, err := identity.CredentialsID(m.GetCredentials())
	if err != nil {
		return fmt.Errorf("join cluster: %w", err)
	}
	if id.Role != cfg.Role {
		return fmt.Errorf("join cluster: the token is for a node of role %s, this one is of role %s", id.Role, cfg.Role)
	}
	if id.Role == identity.RoleServer {
		if _, err := identity.InstallKeyring(cfg.Keyring, m.GetKeyring()); err != nil {
			return fmt.Errorf("join cluster: %w", err)
		}
	}
	return node.Install(m.GetCredentials())
}
