import java.nio.file.Path;
import java.util.Map;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.plugins.PluginsLoader;

/**
 * Starts one real Elasticsearch node: EsNode HOME CONFIG_DIR.
 * It does what the distribution's own main class does, less what only a full distribution has
 * (the command-line parent process, entitlements, the keystore, bootstrap checks).
 * HOME has modules/; CONFIG_DIR has elasticsearch.yml and log4j2.properties.
 */
public class EsNode {
    public static void main(String[] args) throws Exception {
        Path home = Path.of(args[0]).toAbsolutePath();
        LogConfigurator.configureESLogging();
        LogConfigurator.registerErrorListener();
        var base = Settings.builder().put("path.home", home.toString()).build();
        var env = InternalSettingsPreparer.prepareEnvironment(base, Map.of(), Path.of(args[1]).toAbsolutePath(), () -> "node");
        LogConfigurator.configure(env, true);
        var plugins = PluginsLoader.createPluginsLoader(
            PluginsLoader.loadModulesBundles(home.resolve("modules")),
            PluginsLoader.loadPluginsBundles(home.resolve("plugins")), Map.of(), false);
        Node node = new Node(env, plugins);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> { try { node.close(); } catch (Exception e) { e.printStackTrace(); } }));
        node.start();
        Thread.currentThread().join(); // the node's own threads are daemons
    }
}
