package http

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// JoinURL returns the address of a handler: host, then path_prefix and path with
// exactly one slash between them. MongooseIM drops the leading slash of path and
// puts none in, so that /webservice and /notifications become
// /webservicenotifications; its documentation promises what this does.
func JoinURL(host, prefix, path string) (*url.URL, error) {
	full := "/" + strings.TrimLeft(prefix, "/")
	if path = strings.TrimLeft(path, "/"); path != "" {
		full = strings.TrimRight(full, "/") + "/" + path
	}
	u, err := url.Parse(strings.TrimRight(host, "/") + full)
	if err != nil {
		// The parser's error quotes the address, which may hold a password.
		return nil, errors.New("connection.host, path_prefix and path do not make a URL; write host as http://name:port or https://name")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("connection.host %q must be http://name[:port] or https://name[:port]", redact(u))
	}
	return u, nil
}

// redact returns u as errors and logs may show it: scheme and host only. User,
// password and query hold credentials; of many webhooks the path is the secret.
func redact(u *url.URL) string {
	shown := url.URL{Scheme: u.Scheme, Host: u.Host}
	return shown.String()
}
