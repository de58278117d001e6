%% What the parts of mod_event_feed tell each other.

%% Needs xmpp.hrl before it.

-define(NS_EVENT_FEED, <<"urn:eventpusher:feed:1">>).

%% It grows with each change of the module, so that the component can say that it is old.
-define(REVISION, 3).

%% What an event says about the session that it belongs to. The source follows
%% it, so that one session takes the place of another in the right order.
-type session_change() :: none
                        | {opened | available | unavailable | resumed | hibernated, ljid(), pid()}.

%% One event before it has its number. A stanza is kept as a term in Erlang's
%% external format: a binary, which all processes share, and read again in
%% a twentieth of the time that XML takes, without loss.
-record(fact, {kind :: binary(),
	       host :: binary(),
	       user :: binary() | undefined,
	       t :: integer(),                         % milliseconds since 1970
	       attrs = [] :: [{binary(), binary()}],   % those beside the common ones
	       stanza = none :: none | binary(),
	       session = none :: session_change()}).

%% One event as it is kept.
-record(kept, {seq :: pos_integer(),
	       size :: non_neg_integer(),
	       kind :: binary(),
	       host :: binary(),
	       user :: binary() | undefined,
	       t :: integer(),
	       attrs :: [{binary(), binary()}],
	       stanza :: none | binary()}).
