package sns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"
	"golang.org/x/net/http/httpproxy"

	"eventpusher/config"
)

// connect makes the client. Nothing is dialled yet; without keys of c the SDK's own settings
// are read: the environment and the files in ~/.aws.
func (b *Backend) connect(c *config.SNS) error {
	settings, err := b.settings(c)
	if err != nil {
		return err
	}
	if b.region = settings.Region; b.region == "" {
		return errors.New("no region is known: write region, or the topic's whole ARN as topic")
	}
	options := func(o *sns.Options) {
		o.Retryer = aws.NopRetryer{} // retries are the pusher's
	}
	if c.Host == "" {
		b.client = sns.NewFromConfig(settings, options)
		resolved, err := b.client.Options().EndpointResolverV2.ResolveEndpoint(context.Background(), sns.EndpointParameters{Region: &b.region})
		if err != nil {
			return fmt.Errorf("region %q: %w", b.region, err)
		}
		b.shownEndpoint = resolved.URI.Scheme + "://" + resolved.URI.Host
		return nil
	}
	endpoint, err := endpointURL(c.Host)
	if err != nil {
		return err
	}
	b.shownEndpoint = endpoint.Scheme + "://" + endpoint.Host
	b.client = sns.NewFromConfig(settings, options, func(o *sns.Options) { o.BaseEndpoint = aws.String(endpoint.String()) })
	return nil
}

// settings returns region and credentials: those of c, else what the SDK finds.
func (b *Backend) settings(c *config.SNS) (aws.Config, error) {
	client := awshttp.NewBuildableClient().WithTransportOptions(b.tune)
	static := credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey.Reveal(), c.SessionToken.Reveal())
	logger := logging.LoggerFunc(b.logSDK)
	settings := aws.Config{Region: c.Region, Credentials: static, HTTPClient: client, Logger: logger}
	if c.AccessKeyID == "" || c.RoleARN != "" || c.Region == "" {
		// By default the SDK's messages go to the standard error output.
		options := []func(*awsconfig.LoadOptions) error{
			awsconfig.WithLogger(logger), awsconfig.WithRegion(c.Region), awsconfig.WithHTTPClient(client),
		}
		if c.AccessKeyID != "" {
			options = append(options, awsconfig.WithCredentialsProvider(static))
		}
		var err error
		if settings, err = awsconfig.LoadDefaultConfig(context.Background(), options...); err != nil {
			return settings, err
		}
	}
	settings.AppID = "eventpusher"
	if whole, ok := settings.HTTPClient.(*awshttp.BuildableClient); ok {
		b.transfer = whole.GetTransport() // with the authorities of AWS_CA_BUNDLE
	}
	settings.HTTPClient = &http.Client{
		Transport:     b.transfer,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if c.RoleARN != "" {
		settings.Credentials = stscreds.NewAssumeRoleProvider(sts.NewFromConfig(settings), c.RoleARN, func(o *stscreds.AssumeRoleOptions) {
			o.RoleSessionName = "eventpusher"
			if c.ExternalID != "" {
				o.ExternalID = &c.ExternalID
			}
		})
	}
	if b.found = c.AccessKeyID == "" || c.RoleARN != ""; b.found {
		settings.Credentials = aws.NewCredentialsCache(found{settings.Credentials}, func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = time.Minute })
	}
	return settings, nil
}

// tune sets what differs from the SDK's own transport.
func (b *Backend) tune(t *http.Transport) {
	t.Proxy = proxy()
	t.DialContext = (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext
	t.MaxConnsPerHost, t.MaxIdleConns, t.MaxIdleConnsPerHost = b.limits.Lanes, b.limits.Lanes, b.limits.Lanes
	t.IdleConnTimeout = 30 * time.Second
	t.TLSHandshakeTimeout = callTimeout
	t.ForceAttemptHTTP2 = false
}

// logSDK takes over what the SDK would print.
func (b *Backend) logSDK(_ logging.Classification, format string, v ...any) {
	b.log.Debug("message of the AWS SDK", "backend", b.name, "text", fmt.Sprintf(format, v...))
}

// found are credentials that come from somewhere else than the configuration.
type found struct{ from aws.CredentialsProvider }

// Retrieve implements aws.CredentialsProvider. Its errors are credentialsErrors.
func (f found) Retrieve(ctx context.Context) (aws.Credentials, error) {
	got, err := f.from.Retrieve(ctx)
	if err != nil {
		return got, &credentialsError{err}
	}
	return got, nil
}

// credentialsError says that there are no credentials.
type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return e.err.Error() }

func (e *credentialsError) Unwrap() error { return e.err }

// proxy returns the proxy of HTTPS_PROXY, HTTP_PROXY and NO_PROXY for each request: none for
// this machine, nor for the link-local addresses where AWS gives credentials to its machines.
func proxy() func(*http.Request) (*url.URL, error) {
	configured := httpproxy.FromEnvironment().ProxyFunc()
	return func(req *http.Request) (*url.URL, error) {
		if ip, err := netip.ParseAddr(req.URL.Hostname()); err == nil && ip.IsLinkLocalUnicast() {
			return nil, nil
		}
		return configured(req.URL)
	}
}

// endpointURL reads sns_host: a host name, meant as https, or a URL whose scheme,
// port and path are used. MongooseIM documents the latter but takes only the
// former.
func endpointURL(host string) (*url.URL, error) {
	if !strings.Contains(host, "://") {
		host = "https://" + host
	}
	u, err := url.Parse(host)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("sns: sns_host must be a host name such as sns.eu-west-1.amazonaws.com, or an http or https URL")
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}, nil
}
