package nodeport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/weirmesh/weir/identity"
)

// What is spoken, by ALPN name.
const (
	protoHTTP3 = http3.NextProtoH3
	protoHTTP2 = "h2"
	protoRaft  = "raft/1"
)

// Trust makes the TLS settings for some protocols: whom to believe, and what to
// show. It is met by [identity.Identity.ClientTLS], and by
// [identity.JoinTLS] with a token.
type Trust func(protocols ...string) *tls.Config

// serverTLS lets peers in as the identity does, and on raft/1 servers alone.
func serverTLS(node *identity.Identity, protocols ...string) *tls.Config {
	config := node.ServerTLS(protocols...)
	anyNode := config.VerifyConnection
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if state.NegotiatedProtocol == protoRaft {
			_, err := memberOf(node, state)
			return err
		}
		return anyNode(state)
	}
	return config
}

// memberOf says which server is at the other end.
func memberOf(node *identity.Identity, state tls.ConnectionState) (identity.ID, error) {
	id, err := node.Verify(state.PeerCertificates)
	if err != nil {
		return identity.ID{}, err
	}
	if id.Role != identity.RoleServer {
		return identity.ID{}, fmt.Errorf("verify peer %s: it is no server, and speaks %s", id, protoRaft)
	}
	return id, nil
}

// TrustMember believes one server, or any if member is empty, by a certificate
// that is good today.
func TrustMember(node *identity.Identity, member string) Trust {
	return func(protocols ...string) *tls.Config {
		config := node.ClientTLS(protocols...)
		server := config.VerifyConnection
		config.VerifyConnection = func(state tls.ConnectionState) error {
			if err := server(state); err != nil {
				return err
			}
			id, err := memberOf(node, state)
			if err == nil && member != "" && id.Name != member {
				err = fmt.Errorf("verify peer %s: it is not the server %s", id, member)
			}
			return err
		}
		return config
	}
}

// disbelief is an error of a handshake that is about who the peer is.
type disbelief struct{ cause error }

func (d *disbelief) Error() string { return d.cause.Error() }
func (d *disbelief) Unwrap() error { return d.cause }

// marked lets an error of VerifyConnection be told from one of the network.
func marked(config *tls.Config) *tls.Config {
	verify := config.VerifyConnection
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if err := verify(state); err != nil {
			return &disbelief{err}
		}
		return nil
	}
	return config
}

// internalAlert is what a server answers that has no certificate yet.
const internalAlert = 80

// WrongPeer tells whether an error of a dial or a call is that the two sides do
// not believe each other: trying again does not help.
func WrongPeer(err error) bool {
	var mine *disbelief
	var overQUIC *quic.TransportError
	var overTCP *net.OpError
	switch {
	case errors.As(err, &mine):
		return true
	case errors.As(err, &overQUIC):
		return overQUIC.ErrorCode.IsCryptoError() && overQUIC.ErrorCode&0xff != internalAlert
	case errors.As(err, &overTCP):
		// The type of an alert that came over TCP is crypto/tls's own.
		return overTCP.Op == "remote error" && overTCP.Err.Error() != tls.AlertError(internalAlert).Error()
	}
	return false
}

// GoingAway tells whether an error of a stream or a call is that the server
// stops, and said so.
func GoingAway(err error) bool {
	var closed *quic.ApplicationError
	return errors.As(err, &closed) && closed.Remote &&
		(closed.ErrorCode == codeGoingAway || closed.ErrorCode == quic.ApplicationErrorCode(http3.ErrCodeNoError))
}
