%%% Which members of a room miss a message: users of ours who are not in the room
%%% and have no session at all. One event has them all, so that a room cannot
%%% flood the feed, and there is a bound to what a message costs, whatever an
%%% owner writes into the list of members.
%%%
%%% It runs in the room's process and remembers in its dictionary.
-module(mod_event_feed_missed).

-export([by/3]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("mod_muc_room.hrl").

%% Bytes of the list in one event, and events for one message. The component reads
%% the start tag of an event whatever its length up to 64 KiB.
-define(MOST_BYTES, 16 * 1024).
-define(MOST_EVENTS, 4).
%% Members and others that are looked at for one message.
-define(MOST_AFFILIATIONS, 10000).
%% Anybody can be made a member, account or not. To ask for an account can mean
%% to ask another server, so a message asks for few, and those not known count
%% as accounts.
-define(MOST_LOOKUPS, 16).
%% How long it is believed, in seconds, that there is an account, or none.
-define(ACCOUNT_FOR, 600).
-define(NO_ACCOUNT_FOR, 60).
%% A room that is too large is logged once in so many seconds.
-define(LOG_INTERVAL, 3600).

-define(ACCOUNTS, mod_event_feed_accounts).
-define(LOGGED, mod_event_feed_logged).

-type account() :: {binary(), binary()}.

%% by returns the members who miss the message, as the texts of one attribute for
%% each event. The room sends it from Occupant.
-spec by(message(), jid(), #state{}) -> [binary()].
by(#message{from = From} = Message, Occupant, #state{server_host = Host, config = Config} = State) ->
    case is_room(gen_mod:get_module_opt(Host, mod_event_feed, room_missed), Config)
	andalso is_worth_telling(Message) of
	true ->
	    Here = here(From, State),
	    Limit = gen_mod:get_module_opt(Host, mod_event_feed, room_missed_limit),
	    told(absent(maps:next(maps:iterator(State#state.affiliations)), Here, Limit), Occupant, State);
	false ->
	    []
    end.

is_room(all, _Config) -> true;
is_room(none, _Config) -> false;
is_room('members-only', #config{members_only = MembersOnly}) -> MembersOnly.

%% Whether a member would want to know of it: something was said, and its sender
%% does not ask to forget it (XEP-0334).
is_worth_telling(#message{body = Body} = Message) ->
    xmpp:get_text(Body) /= <<>> andalso not xmpp:has_subtag(Message, #hint{type = 'no-store'}).

%% here are the accounts that miss nothing: of the room's occupants, of who speaks, and
%% of subscribers (MUC/Sub), to whom the room sends the message wherever they are.
here(From, #state{users = Users, muc_subscribers = #muc_subscribers{subscribers = Subscribers}}) ->
    Occupants = maps:fold(fun({User, Server, _}, _, Here) -> Here#{{User, Server} => true} end,
			  #{{From#jid.luser, From#jid.lserver} => true}, Users),
    maps:fold(fun({User, Server, _}, #subscriber{nodes = Nodes}, Here) ->
		      case lists:member(?NS_MUCSUB_NODES_MESSAGES, Nodes) of
			  true -> Here#{{User, Server} => true};
			  false -> Here
		      end
	      end, Occupants, Subscribers).

%% absent are the members who are not there and have no session, or too_many.
absent(Next, Here, Limit) ->
    absent(Next, Here, Limit, ?MOST_AFFILIATIONS, []).

absent(none, _Here, _Limit, _Most, Absent) ->
    Absent;
absent(_Next, _Here, _Limit, 0, _Absent) ->
    too_many;
absent({{User, Server, _}, Affiliation, Iterator}, Here, Limit, Most, Absent) ->
    Account = {User, Server},
    case User /= <<>> andalso is_member(Affiliation) andalso not is_map_key(Account, Here)
	andalso mod_event_feed:is_served(Server)
	andalso ejabberd_sm:get_session_sids(User, Server) == [] of
	true when Limit == 0 -> too_many;
	true -> absent(maps:next(Iterator), Here, Limit - 1, Most - 1, [Account | Absent]);
	false -> absent(maps:next(Iterator), Here, Limit, Most - 1, Absent)
    end.

is_member({Affiliation, _Reason}) -> is_member(Affiliation);
is_member(Affiliation) -> Affiliation == member orelse Affiliation == admin orelse Affiliation == owner.

told(too_many, _Occupant, State) ->
    log_too_many(State),
    [];
told(Absent, Occupant, _State) ->
    texts([jid:encode({User, Server, <<>>}) || {User, Server} <- existing(Absent, Occupant)], [], 0, []).

%% texts fills one text after the other. It takes the members, those of the text that
%% is being filled and their bytes, and the texts that are full.
texts([], [], 0, Full) ->
    lists:reverse(Full);
texts(Members, _, _, Full) when length(Full) == ?MOST_EVENTS ->
    mod_event_feed_intake:count_unnamed(length(Members)),
    lists:reverse(Full);
texts([Member | Members], Text, Bytes, Full) when Bytes + 1 + byte_size(Member) =< ?MOST_BYTES ->
    texts(Members, [Member | Text], Bytes + 1 + byte_size(Member), Full);
texts(Members, Text, _, Full) ->
    texts(Members, [], 0, [iolist_to_binary(lists:join($\s, Text)) | Full]).

%% existing are those that are known to be accounts, or may be, and do not block the
%% room. Only what is said about these is remembered.
-spec existing([account()], jid()) -> [account()].
existing(Candidates, Occupant) ->
    Known = case get(?ACCOUNTS) of
		undefined -> #{};
		Map -> Map
	    end,
    Now = erlang:monotonic_time(second),
    {Members, Remembered, _} =
	lists:foldl(
	  fun(Account, {Members, Remembered, Lookups}) ->
		  case Known of
		      #{Account := {Exists, Until} = Fact} when Now < Until ->
			  {listed(Exists, Account, Occupant, Members), Remembered#{Account => Fact}, Lookups};
		      _ when Lookups > 0 ->
			  {Exists, _} = Fact = look_up(Account, Now),
			  {listed(Exists, Account, Occupant, Members), Remembered#{Account => Fact}, Lookups - 1};
		      _ ->
			  {listed(true, Account, Occupant, Members), Remembered, 0}
		  end
	  end, {[], #{}, ?MOST_LOOKUPS}, Candidates),
    put(?ACCOUNTS, Remembered),
    Members.

listed(true, {User, Server} = Account, Occupant, Members) ->
    %% They are prepared already.
    Member = #jid{user = User, server = Server, luser = User, lserver = Server},
    case ejabberd_hooks:run_fold(privacy_check_packet, Server, allow,
				 [Member, #message{type = groupchat, from = Occupant, to = Member}, in]) of
	allow -> [Account | Members];
	deny -> Members
    end;
listed(false, _Account, _Occupant, Members) ->
    Members.

look_up({User, Server}, Now) ->
    case ejabberd_auth:user_exists(User, Server) of
	true -> {true, Now + ?ACCOUNT_FOR};
	false -> {false, Now + ?NO_ACCOUNT_FOR}
    end.

log_too_many(#state{jid = Room}) ->
    Now = erlang:monotonic_time(second),
    case get(?LOGGED) of
	Last when is_integer(Last), Now - Last < ?LOG_INTERVAL ->
	    ok;
	_ ->
	    put(?LOGGED, Now),
	    ?WARNING_MSG("Nobody who is away is told of messages in ~ts: more members are away than "
			 "room_missed_limit of mod_event_feed allows, or the room has too many affiliations",
			 [jid:encode(Room)])
    end.
